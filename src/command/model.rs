//! A toy keyspace for tests: one map, one clock, whole commands.
//!
//! It applies changes in the plainest way there is, so that what a command asks for can be
//! judged by what clients see afterwards.

use std::borrow::Cow;
use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::float::Wide;
use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::resp::reply::{Protocol, Reply};
use crate::value::change::{Amount, Change, Edit, Expire};
use crate::value::element::Element;
use crate::value::entry::Entry;
use crate::value::fields::Fields;
use crate::value::number::{add_amounts, amount_text, parse_float};
use crate::value::packed::Packed;
use crate::value::view::{Body, Kind, View, Views};

use super::spec::{Call, Keyed};
use super::{object, spec, table};

/// How the model runs a command.
enum Run {
    /// All of it at once.
    Whole(Keyed),
    /// A part per so many arguments; replies are summed, gathered, or the last one stands.
    Parts(usize, Gather, Keyed),
}

#[derive(Clone, Copy)]
enum Gather {
    Sum,
    Array,
    Last,
}

fn run_of(name: &str) -> Run {
    use Gather::{Array, Last, Sum};
    Run::Whole(match name {
        "OBJECT" => object::object,
        "MEMORY" => object::memory_usage,
        _ => match table::lookup(name.as_bytes()).map(|spec| spec.run) {
            Some(spec::Run::Slot(keyed)) => keyed,
            Some(spec::Run::Each { stride, merge, part }) => {
                let gather = match merge {
                    spec::Merge::Array => Array,
                    spec::Merge::Sum => Sum,
                    spec::Merge::Ok => Last,
                };
                return Run::Parts(stride, gather, part);
            }
            _ => panic!("the model has no {name}"),
        },
    })
}

/// The reply and the changes of one keyed function, which are not applied. Asserts what holds of
/// every command: exactly one reply, and no changes beside an error.
pub(super) fn ask<'a>(
    views: &dyn Views,
    now: UnixMs,
    protocol: Protocol,
    keyed: Keyed,
    args: &'a [&'a [u8]],
) -> (Vec<u8>, Vec<(&'a [u8], Change<'a>)>) {
    ask_by_chance(views, now, 4, protocol, keyed, args)
}

/// The same with a number drawn by chance.
pub(super) fn ask_by_chance<'a>(
    views: &dyn Views,
    now: UnixMs,
    random: u64,
    protocol: Protocol,
    keyed: Keyed,
    args: &'a [&'a [u8]],
) -> (Vec<u8>, Vec<(&'a [u8], Change<'a>)>) {
    let mut reply = Reply::new(protocol);
    let mut changes = SmallVec::new();
    keyed(&mut Call { args, now, random, views, reply: &mut reply, changes: &mut changes });
    assert_eq!(replies_in(&reply.bytes), 1, "{:?}", reply.bytes);
    assert!(reply.bytes[0] != b'-' || changes.is_empty(), "an error came with changes");
    (reply.bytes.to_vec(), changes.into_vec())
}

/// What the model keeps under a key.
#[derive(Clone, PartialEq, Debug)]
struct Kept {
    kind: Kind,
    value: Vec<u8>,
    /// Of a collection.
    elements: Vec<Element<'static>>,
    expire_at: Option<UnixMs>,
}

impl Kept {
    fn new(kind: Kind) -> Kept {
        Kept { kind, value: Vec::new(), elements: Vec::new(), expire_at: None }
    }

    fn edit(&mut self, edit: &Edit<'_>) {
        let zset = self.kind == Kind::Zset;
        let all = &mut self.elements;
        match edit {
            Edit::Set { name, value, expire_at } => {
                let mut new = Element { expire_at: *expire_at, ..Element::member(name.to_vec()) };
                if zset {
                    new.score = f64::from_le_bytes(value[..].try_into().expect("a score"));
                } else {
                    new.value = Cow::Owned(value.to_vec());
                }
                match all.iter_mut().find(|old| old.name == *name) {
                    Some(old) => *old = new,
                    None => all.push(new),
                }
            }
            Edit::Remove { name } => all.retain(|old| old.name != *name),
            Edit::Add { name, amount } => {
                let old = match all.iter_mut().find(|old| old.name == *name) {
                    Some(old) => old,
                    None => {
                        let value = if zset { Vec::new() } else { b"0".to_vec() };
                        all.push(Element::field(name.to_vec(), value));
                        all.last_mut().expect("just pushed")
                    }
                };
                match amount {
                    Amount::Float(hi, lo) if zset => {
                        let sum = Wide::new(old.score, 0.0).plus(Wide { hi: *hi, lo: *lo });
                        old.score = sum.hi;
                    }
                    _ => old.value = Cow::Owned(counted(&old.value, *amount)),
                }
            }
            Edit::PushLeft(value) => all.insert(0, Element::item(value.to_vec())),
            Edit::PushRight(value) => all.push(Element::item(value.to_vec())),
            Edit::Insert { place, value } => {
                all.insert(*place.min(&all.len()), Element::item(value.to_vec()));
            }
            Edit::SetAt { place, value } => all[*place] = Element::item(value.to_vec()),
            Edit::RemoveRange { place, count } => {
                all.drain(*place..place + count);
            }
        }
    }
}

/// The keyspace.
pub(super) struct Model {
    keys: HashMap<Vec<u8>, Kept>,
    /// The moment of the next command.
    pub(super) now: UnixMs,
    /// The protocol of the replies.
    pub(super) protocol: Protocol,
}

impl Views for Model {
    fn view(&self, key: &[u8]) -> Option<View<'_>> {
        let kept = self.keys.get(key)?;
        if kept.expire_at.is_some_and(|at| at <= self.now) {
            return None;
        }
        let lasts = |element: &&Element<'_>| element.expire_at.is_none_or(|at| at > self.now);
        let body = match kept.kind {
            Kind::String => Body::Stored(Packed::raw(&kept.value)),
            kind => {
                let elements: Vec<_> = kept.elements.iter().filter(lasts).cloned().collect();
                if elements.is_empty() {
                    return None;
                }
                Body::Fields(Fields::listed(kind, elements))
            }
        };
        Some(View {
            kind: kept.kind,
            expire_at: kept.expire_at,
            memory: 48 + key.len() + kept.value.len(),
            body,
        })
    }

    /// A history of one write.
    fn history(&self, key: &[u8]) -> Option<Entry> {
        let kept =
            self.keys.get(key).filter(|kept| kept.expire_at.is_none_or(|at| at > self.now))?;
        let expire = kept.expire_at.map_or(Expire::Clear, Expire::At);
        let change = match kept.kind {
            Kind::String => Change::Put { value: Cow::Borrowed(&kept.value), expire },
            kind => Change::make(kind, kept.expire_at, kept.elements.clone()),
        };
        let mut entry = Entry::new();
        let dot = Dot::new(Hlc(1), Actor(1));
        entry.apply(&change, dot, self.now).expect("a first write");
        Some(entry)
    }
}

impl Model {
    /// An empty keyspace in the year 2026.
    pub(super) fn new() -> Model {
        Model { keys: HashMap::new(), now: UnixMs(1_790_000_000_000), protocol: Protocol::Resp2 }
    }

    /// Puts a key of another type there.
    pub(super) fn plant(&mut self, key: &[u8], kind: Kind) {
        let elements = vec![Element::scored(b"planted".to_vec(), 1.0)];
        self.keys.insert(key.to_vec(), Kept { elements, ..Kept::new(kind) });
    }

    /// Brings the elements of a hash or a set into the order in which `view` lists them.
    pub(super) fn order_like(&mut self, key: &[u8], view: Option<&View<'_>>) {
        let is_unordered = |kind| matches!(kind, Kind::Hash | Kind::Set);
        let (Some(kept), Some(view)) = (self.keys.get_mut(key), view) else { return };
        if kept.kind == view.kind && is_unordered(kept.kind) {
            let fields = view.fields(view.kind).expect("of that type");
            let places: HashMap<Vec<u8>, usize> =
                fields.iter().enumerate().map(|(at, e)| (e.name.into_owned(), at)).collect();
            kept.elements.sort_by_cached_key(|e| places.get(&*e.name).copied());
        }
    }

    /// Applies a change as if some command had asked for it.
    pub(super) fn make(&mut self, key: &[u8], change: Change<'_>) {
        self.apply(key, &change);
    }

    /// Runs and applies a whole command; its reply.
    pub(super) fn run(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let name = String::from_utf8_lossy(args[0]).to_uppercase();
        if let Err(refusal) = table::resolve(args)
            && table::lookup(args[0]).is_some_and(|spec| spec.subcommands.is_empty())
        {
            let mut reply = Reply::new(self.protocol);
            refusal.write(args, &mut reply);
            return reply.bytes.to_vec();
        }
        match run_of(&name) {
            Run::Whole(keyed) => self.step(keyed, args),
            Run::Parts(stride, gather, keyed) => {
                let parts = args[1..].chunks(stride);
                let replies: Vec<Vec<u8>> =
                    parts.map(|part| self.step(keyed, &[&args[..1], part].concat())).collect();
                gathered(gather, &replies)
            }
        }
    }

    fn step(&mut self, keyed: Keyed, args: &[&[u8]]) -> Vec<u8> {
        let (reply, changes) = ask(self, self.now, self.protocol, keyed, args);
        for (key, change) in changes {
            self.apply(key, &change);
        }
        reply
    }

    fn apply(&mut self, key: &[u8], change: &Change<'_>) {
        let now = self.now;
        let lasts = |at: Option<UnixMs>| at.is_none_or(|at| at > now);
        // A hash whose last field has expired is gone, with its own time to live.
        let is_seen = |kept: &Kept| {
            kept.kind == Kind::String
                || kept.elements.iter().any(|element| lasts(element.expire_at))
        };
        self.keys.retain(|_, kept| lasts(kept.expire_at) && is_seen(kept));
        match change {
            Change::Put { value, expire } => {
                let expire_at = match *expire {
                    Expire::Clear => None,
                    Expire::Keep => self.keys.get(key).and_then(|kept| kept.expire_at),
                    Expire::At(at) => Some(at),
                };
                let kept = Kept { value: value.to_vec(), expire_at, ..Kept::new(Kind::String) };
                self.keys.insert(key.to_vec(), kept);
            }
            Change::Delete => {
                self.keys.remove(key);
            }
            Change::Increment(amount) => {
                let zero = || Kept { value: b"0".to_vec(), ..Kept::new(Kind::String) };
                let kept = self.keys.entry(key.to_vec()).or_insert_with(zero);
                kept.value = counted(&kept.value, *amount);
            }
            Change::Seen(_) => unreachable!("the model keeps no history"),
            Change::Edit(edits) => {
                let kept = self.keys.entry(key.to_vec()).or_insert_with(|| Kept::new(edits.kind));
                assert_eq!(kept.kind, edits.kind, "a command looks at the type");
                kept.elements.retain(|old| old.expire_at.is_none_or(|at| at > self.now));
                edits.list().for_each(|edit| kept.edit(edit));
                if kept.elements.is_empty() {
                    self.keys.remove(key);
                }
            }
            Change::Make(made) => {
                let mut kept = Kept { expire_at: made.expire_at, ..Kept::new(made.kind) };
                for element in &made.elements {
                    if made.kind != Kind::List {
                        kept.elements.retain(|old| old.name != element.name);
                    }
                    kept.elements.push(element.clone().into_owned());
                }
                self.keys.insert(key.to_vec(), kept);
            }
            Change::Expire(expire_at) => {
                self.keys.get_mut(key).expect("only a visible key's expiry changes").expire_at =
                    *expire_at;
            }
        }
    }
}

fn counted(value: &[u8], amount: Amount) -> Vec<u8> {
    match amount {
        Amount::Int(by) => {
            let number: i128 = String::from_utf8_lossy(value).parse().expect("counted an integer");
            (number + by).to_string().into_bytes()
        }
        amount @ Amount::Float(..) => {
            amount_text(add_amounts(parse_float(value).expect("counted a number"), amount))
        }
    }
}

fn gathered(gather: Gather, replies: &[Vec<u8>]) -> Vec<u8> {
    match gather {
        Gather::Last => replies.last().expect("a part").clone(),
        Gather::Array => {
            [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
        }
        Gather::Sum => {
            let ones = replies.iter().filter(|reply| reply[..] == b":1\r\n"[..]).count();
            format!(":{ones}\r\n").into_bytes()
        }
    }
}

/// How many complete replies the bytes hold; panics when they end inside one.
fn replies_in(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = after_reply(bytes);
        count += 1;
    }
    count
}

/// What follows the first reply.
pub(super) fn after_reply(bytes: &[u8]) -> &[u8] {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
    let size = || String::from_utf8_lossy(&bytes[1..line]).parse::<i64>().expect("a size");
    let rest = &bytes[line + 2..];
    match bytes[0] {
        b'$' | b'=' if size() >= 0 => &rest[size() as usize + 2..],
        b'*' | b'~' => (0..size()).fold(rest, |rest, _| after_reply(rest)),
        b'%' => (0..2 * size()).fold(rest, |rest, _| after_reply(rest)),
        _ => rest,
    }
}

/// The words of a transcript's line: split at spaces, `\\` `\r` `\n` `\xNN` unescaped, `''` is empty.
pub(super) fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "''" { Vec::new() } else { unescape(word) }).collect()
}

/// The bytes that an escaped text stands for.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (plain, used) = match (byte, after.first()) {
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'x')) => {
                (u8::from_str_radix(&text[text.len() - rest.len() + 2..][..2], 16).unwrap(), 4)
            }
            (b'\\', Some(_)) => (b'\\', 2),
            _ => (byte, 1),
        };
        out.push(plain);
        rest = &rest[used..];
    }
    out
}
