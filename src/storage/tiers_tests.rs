//! Memory, log and what is cold against a keyspace that never heard of a log: whatever is done,
//! both hold and answer the same, and every prefix of the frames gives what was held then.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::anti_entropy::tree::Tree;
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::base::time::{Hlc, UnixMs};
use crate::value::change::{Amount, Change, Edit, Expire, Seen as WriteSeen};
use crate::value::entry::Entry;
use crate::value::record;
use crate::value::view::{Body, Kind as ValueKind, Views};

use super::block::{Form, blocks, table_size};
use super::disk::RealDisk;
use super::footprint::Footprint;
use super::frame::{HEADER_SIZE, Kind};
use super::keyspace::Keyspace;
use super::log::{Commit, Fsync, Layout, Log, Options};
use super::lost::Walk;
use super::place::Place;
use super::segment::HEAD_SIZE;
use super::syncer::Lost;
use super::vnode_write::Merged;
use super::warming::{Patience, Tier, Warmed};
use super::weight::Weight;

const VNODE: VnodeId = VnodeId(1);
const SEED: HashSeed = HashSeed(7);
const KEYS: u8 = 10;
const COLLECTIONS: [ValueKind; 4] =
    [ValueKind::List, ValueKind::Hash, ValueKind::Set, ValueKind::Zset];
const PLENTY: u64 = 1 << 40;

fn actor(node: u16) -> Actor {
    Actor::new(NodeId(node), Boot(1))
}

fn name(key: u8) -> Vec<u8> {
    if key == 0 { Vec::new() } else { format!("key:{key}").into_bytes() }
}

#[derive(Clone, Debug)]
enum Write {
    Put {
        size: usize,
        expire: Option<u64>,
    },
    PutKeeping {
        size: usize,
    },
    Delete,
    Count(i8),
    Expire(Option<u64>),
    /// Of a collection: of the type that is there, or of this one.
    Edit {
        kind: ValueKind,
        from: u16,
        count: u16,
        removes: bool,
    },
    /// By a client that has seen all of the key, or nothing; without a size it deletes.
    Seen {
        all: bool,
        size: Option<usize>,
    },
}

#[derive(Clone, Debug)]
enum Step {
    /// Here.
    Write(u8, Write),
    /// At the other replica, whose records may be delivered later.
    Elsewhere(u8, Write),
    /// One of its records comes.
    Deliver(usize),
    /// All it holds of a key comes.
    DeliverWhole(u8),
    /// One of ours goes there.
    Share(usize),
    Collect(u8),
    Wait(u64),
    Look(u8),
    /// Everything that can be cooled is, or no new block is located from here on.
    Cool {
        located: bool,
    },
    Warm(u8),
    /// The oldest frames are compacted away.
    Compact(usize),
    /// All since these frames was lost in a failed sync.
    Lose(usize),
    /// If the vnode is sole.
    Clear,
}

fn write() -> impl Strategy<Value = Write> {
    let size = prop_oneof![0usize..40, 0usize..700];
    prop_oneof![
        4 => (size.clone(), proptest::option::of(1u64..50))
            .prop_map(|(size, expire)| Write::Put { size, expire }),
        1 => size.prop_map(|size| Write::PutKeeping { size }),
        2 => Just(Write::Delete),
        2 => any::<i8>().prop_map(Write::Count),
        2 => proptest::option::of(1u64..50).prop_map(Write::Expire),
        2 => (any::<bool>(), proptest::option::of(0usize..300))
            .prop_map(|(all, size)| Write::Seen { all, size }),
        4 => (0usize..4, 0u16..300, prop_oneof![1u16..4, 1u16..300], any::<bool>())
            .prop_map(|(kind, from, count, removes)| {
                Write::Edit { kind: COLLECTIONS[kind], from, count, removes }
            }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..KEYS, write()).prop_map(|(key, write)| Step::Write(key, write)),
        4 => (0..KEYS, write()).prop_map(|(key, write)| Step::Elsewhere(key, write)),
        3 => any::<usize>().prop_map(Step::Deliver),
        1 => (0..KEYS).prop_map(Step::DeliverWhole),
        1 => any::<usize>().prop_map(Step::Share),
        1 => (0..KEYS).prop_map(Step::Collect),
        1 => (1u64..30).prop_map(Step::Wait),
        1 => (0..KEYS).prop_map(Step::Look),
        4 => any::<bool>().prop_map(|located| Step::Cool { located }),
        1 => (0..KEYS).prop_map(Step::Warm),
        1 => (1usize..40).prop_map(Step::Compact),
        1 => (0usize..40).prop_map(Step::Lose),
        1 => Just(Step::Clear),
    ]
}

fn open(folder: &TempDir) -> Arc<Log> {
    let layout = Layout { vnodes: 2, lanes: 1, cluster: 7 };
    let options = Options { segment_size: 1 << 16, fsync: Fsync::No };
    let log = Log::open(Arc::new(RealDisk), folder.path().to_owned(), layout, options).unwrap();
    log.begin(Hlc::ZERO).unwrap();
    log
}

fn write_out(log: &Log) {
    let mut commit = Commit::default();
    log.note(VNODE, &mut commit);
    log.hold_blocking(&commit).unwrap();
}

struct Frame {
    place: Place,
    kind: Kind,
    payload: Vec<u8>,
}

impl Frame {
    fn key(&self) -> Option<&[u8]> {
        match self.kind {
            Kind::Gone => Some(&self.payload[..]).filter(|key| !key.is_empty()),
            _ => Some(record::decode_key(&self.payload).unwrap()),
        }
    }
}

fn frames(log: &Log) -> Vec<Frame> {
    write_out(log);
    let mut frames = Vec::new();
    for number in 1.. {
        if log.read_range(0, number, 0, &mut [0]).is_err() {
            return frames;
        }
        let mut walk = Walk::new(log, 0, number, HEAD_SIZE);
        while let Some((header, place, payload)) = walk.step(u32::MAX) {
            assert_eq!(header.vnode, VNODE);
            frames.push(Frame { place, kind: header.kind, payload: payload.to_vec() });
        }
    }
    unreachable!()
}

fn read<T>(
    keyspace: &Keyspace,
    now: u64,
    look: impl FnOnce(&super::vnode_read::VnodeRead<'_>) -> T,
) -> T {
    keyspace.read(VNODE, UnixMs(now), look)
}

/// Records by key, compared by what they say.
#[derive(Clone, Debug)]
struct Held(BTreeMap<Vec<u8>, Vec<u8>>);

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        let said = |bytes| record::decode(bytes).unwrap();
        self.0.keys().eq(other.0.keys())
            && self.0.values().zip(other.0.values()).all(|(a, b)| a == b || said(a) == said(b))
    }
}

/// All that is held.
fn held(keyspace: &Keyspace) -> Held {
    let mut held = BTreeMap::new();
    let cold = read(keyspace, 0, |keys| {
        keys.records(|_| true, |key, record| drop(held.insert(key.to_vec(), record.to_vec())))
    });
    for cold in cold {
        held.insert(cold.key.clone(), keyspace.fetch(VNODE, &cold).unwrap());
    }
    // An entry that has the plain form may be kept as an entry after a replay.
    for bytes in held.values_mut() {
        let came = std::mem::take(bytes);
        let (key, record) = record::decode(&came).unwrap();
        let mut entry = Entry::new();
        record.join_into(&mut entry);
        match entry.as_plain() {
            Some(plain) => record::encode_plain(bytes, key, &plain),
            None => *bytes = came,
        }
    }
    Held(held)
}

/// What one looks at without any value.
#[derive(PartialEq, Debug)]
struct Seen {
    digest: Digest,
    shown: Option<(crate::value::view::Kind, Option<UnixMs>, Option<usize>)>,
}

fn seen(keyspace: &Keyspace, key: &[u8], now: u64) -> Seen {
    read(keyspace, now, |keys| {
        let view = keys.view(key);
        let shown = view.as_ref().map(|v| (v.kind, v.expire_at, v.string_len().ok()));
        assert!(keys.missing().is_empty(), "nothing was asked for");
        let cold = matches!(view.as_ref().map(|view| &view.body), Some(Body::Cold { .. }));
        if cold {
            let view = view.unwrap();
            match view.kind {
                ValueKind::String => assert_eq!(view.string().as_deref(), Ok(&b""[..])),
                kind => assert!(view.fields(kind).unwrap().is_empty()),
            }
            assert_eq!(keys.missing()[..], [key.to_vec()]);
            assert_eq!(keys.tier(key), Tier::Cold);
        }
        Seen { digest: keys.state_digest(key), shown }
    })
}

fn sorted(mut keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    keys.sort();
    keys
}

fn check_same(ours: &Keyspace, model: &Keyspace, now: u64) {
    for key in (0..KEYS).map(name) {
        assert_eq!(seen(ours, &key, now), seen(model, &key, now), "{key:?}");
    }
    let lists = |keyspace: &Keyspace| {
        read(keyspace, now, |keys| {
            let mut scanned = Vec::new();
            keys.scan(0..1 << 16, |key, view| {
                scanned.push((key.to_vec(), view.kind, view.expire_at));
            });
            assert!(keys.missing().is_empty(), "a scan reads no value");
            scanned.sort_by(|a, b| a.0.cmp(&b.0));
            (scanned, sorted(keys.live_keys()), sorted(keys.expired()), keys.held())
        })
    };
    assert_eq!(lists(ours), lists(model));
    let counts = |keyspace: &Keyspace| {
        let counts = keyspace.counts(VNODE);
        (counts.live, counts.expiring, counts.held)
    };
    assert_eq!(counts(ours), counts(model));
    let buckets = |keyspace: &Keyspace| keyspace.tree(VNODE, |tree| *tree.buckets());
    assert!(buckets(ours) == buckets(model));
    assert_eq!(held(ours), held(model));
}

/// The sums that a keyspace keeps, by a walk over its blocks.
fn check_sums(keyspace: &Keyspace) {
    let (mut size, mut stored, mut cold, mut tree) = (Footprint::default(), 0, 0, Tree::new());
    let mut inexact = 0;
    let table = keyspace.map.shards()[VNODE.index()].read();
    for block in blocks(&table) {
        let hash = SEED.key(block.key());
        let weight = Weight::of(SEED, hash, block);
        size = size.plus(block.footprint());
        stored += weight.stored as u64;
        // What a large one would take is known about, but not to the byte.
        if let Form::Large(entry) = block.form() {
            let mut record = Vec::new();
            record::encode_whole(&mut record, block.key(), entry);
            let exact = (HEADER_SIZE + record.len()) as i64;
            // Dots are told from each leaf, but from the first one in a record.
            assert!((exact - weight.stored as i64).abs() < 64 + exact / 3);
            inexact += weight.stored as i64 - exact;
        }
        cold += usize::from(block.is_cold());
        tree.add(hash, weight.digest);
    }
    let tables = table_size(&table);
    drop(table);
    assert_eq!((keyspace.memory(), keyspace.table_memory()), (size.taken, tables));
    assert_eq!(keyspace.least(), size.least + tables);
    assert_eq!(keyspace.stored(|_| true), stored);
    assert_eq!(keyspace.counts(VNODE).cold, cold);
    keyspace.tree(VNODE, |kept| assert_eq!(kept.root(), tree.root()));
    let frames: u64 =
        held(keyspace).0.values().map(|record| (HEADER_SIZE + record.len()) as u64).sum();
    assert_eq!(stored as i64 - inexact, frames as i64);
}

/// Invariant L, and that what is live is known to be.
fn check_log(keyspace: &Keyspace, frames: &[Frame]) {
    let mut newest: BTreeMap<&[u8], (&Frame, Option<&Frame>)> = BTreeMap::new();
    for frame in frames {
        match frame.key() {
            None => newest.clear(),
            Some(key) => {
                let (last, state) = newest.entry(key).or_insert((frame, None));
                *last = frame;
                match frame.kind {
                    Kind::State => *state = Some(frame),
                    Kind::Gone => *state = None,
                    _ => {}
                }
            }
        }
    }
    let live = |frame: &Frame| {
        keyspace
            .write(VNODE, UnixMs(0), |keys| keys.is_live(frame.kind, frame.place, &frame.payload))
    };
    let table = keyspace.map.shards()[VNODE.index()].read();
    let mut states = Vec::new();
    for block in blocks(&table) {
        let &(last, state) = newest.get(block.key()).expect("what is held is in the log");
        let state = state.expect("a Join stands on a State");
        states.push(state);
        let place = block.place();
        match block.form() {
            Form::Plain(plain) => {
                let mut record = Vec::new();
                record::encode_plain(&mut record, block.key(), &plain);
                assert_eq!((last.kind, &last.payload), (Kind::State, &record));
                assert!(place.is_none_or(|place| place == last.place));
            }
            Form::Entry(_) | Form::Large(_) => {
                assert!(place.unwrap() <= state.place);
                if block.is_whole() {
                    assert_eq!((last.kind, Some(last.place)), (Kind::State, place));
                }
            }
            Form::ColdPlain(_) | Form::ColdEntry(_) => {
                assert_eq!((last.kind, Some(last.place)), (Kind::State, place));
            }
        }
    }
    drop(table);
    assert!(states.into_iter().all(live));
}

fn replay(frames: &[Frame], sole: bool, located: bool) -> Keyspace {
    let keyspace = Keyspace::new(2, SEED);
    keyspace.set_sole(VNODE, sole);
    keyspace.set_budget(if located { PLENTY } else { 0 });
    keyspace.write(VNODE, UnixMs(0), |keys| {
        for frame in frames {
            keys.replay(frame.kind, frame.place, &frame.payload).unwrap();
        }
    });
    keyspace
}

/// A keyspace with a log, one without, and another replica.
struct World {
    ours: Keyspace,
    model: Keyspace,
    other: Keyspace,
    now: u64,
    sole: bool,
    /// Records of the other replica, and ours.
    theirs: Vec<BytesMut>,
    sent: Vec<BytesMut>,
    /// How many of the oldest frames are compacted away.
    gone: usize,
}

impl World {
    fn new(log: Arc<Log>, sole: bool) -> World {
        let ours = Keyspace::with_log(2, SEED, log);
        let model = Keyspace::new(2, SEED);
        ours.set_sole(VNODE, sole);
        model.set_sole(VNODE, sole);
        let other = Keyspace::new(2, SEED);
        let (theirs, sent) = (Vec::new(), Vec::new());
        World { ours, model, other, now: 1_000, sole, theirs, sent, gone: 0 }
    }

    fn log(&self) -> &Log {
        self.ours.log().unwrap()
    }

    /// What that asks for of a key, as `there` has it.
    fn change(&self, there: &Keyspace, key: u8, write: &Write) -> Change<'static> {
        let value = |size: usize| {
            let bytes = (0..size).map(|at| (at / 7) as u8 ^ key ^ self.now as u8);
            Cow::Owned(bytes.collect::<Vec<u8>>())
        };
        let end = |after: u64| UnixMs(self.now + after);
        match write {
            Write::Put { size, expire } => Change::Put {
                value: value(*size),
                expire: expire.map_or(Expire::Clear, |after| Expire::At(end(after))),
            },
            Write::PutKeeping { size } => Change::Put { value: value(*size), expire: Expire::Keep },
            Write::Delete => Change::Delete,
            Write::Count(by) => Change::Increment(Amount::Int(i128::from(*by))),
            Write::Expire(after) => Change::Expire(after.map(end)),
            Write::Edit { kind, from, count, removes } => {
                let now = UnixMs(self.now);
                let there = there.read(VNODE, now, |keys| keys.view(&name(key)).map(|v| v.kind));
                let kind = there.unwrap_or(*kind);
                let field = |nth: u16| format!("field {nth}").into_bytes();
                let edits = (*from..from + count).map(|nth| match (kind, removes) {
                    (ValueKind::List, true) => {
                        Edit::RemoveRange { place: usize::from(nth) / 4, count: 1 }
                    }
                    (ValueKind::List, false) if nth % 3 == 0 => Edit::PushLeft(value(9)),
                    (ValueKind::List, false) => Edit::PushRight(value(9)),
                    (_, true) => Edit::remove(field(nth)),
                    (ValueKind::Zset, false) => Edit::score(field(nth), f64::from(nth % 7)),
                    (ValueKind::Set, false) => Edit::member(field(nth)),
                    _ => Edit::field(field(nth), value(12)),
                });
                match kind {
                    ValueKind::String => Change::Delete,
                    kind => Change::edit(kind, edits),
                }
            }
            Write::Seen { all, size } => {
                let now = UnixMs(self.now);
                let held = self.model.read(VNODE, now, |keys| keys.history(&name(key)));
                let context = held.filter(|_| *all).map(|entry| entry.context().clone());
                let put = size.map(|size| (value(size), Expire::Keep));
                Change::Seen(Box::new(WriteSeen { context: context.unwrap_or_default(), put }))
            }
        }
    }

    fn write(&mut self, key: u8, write: &Write) {
        let (key, change, now) =
            (name(key), self.change(&self.model, key, write), UnixMs(self.now));
        let lacks = self.ours.write(VNODE, now, |keys| keys.lacks(&key, &change));
        if matches!(write, Write::Put { .. } | Write::Delete)
            && let Tier::Cold = read(&self.ours, self.now, |keys| keys.tier(&key))
        {
            let record = self.model.read(VNODE, now, |keys| keys.entry(&key)).unwrap();
            assert!(!lacks || record.as_plain().is_none(), "what is blind reads nothing");
        }
        if lacks {
            self.warm(&key);
        }
        let (mut out, mut model) = (BytesMut::new(), BytesMut::new());
        let dot = self.ours.write(VNODE, now, |keys| {
            assert!(!keys.lacks(&key, &change));
            keys.apply(&key, &change, actor(1), &mut out)
        });
        let same =
            self.model.write(VNODE, now, |keys| keys.apply(&key, &change, actor(1), &mut model));
        assert_eq!(dot, same);
        assert_eq!(out.is_empty(), model.is_empty());
        // How elements lie in a collection's bytes is nobody's business.
        if !out.is_empty() && record::decode(&out) != record::decode(&model) {
            panic!("{write:?} told {:#?}, not {:#?}", record::decode(&out), record::decode(&model));
        }
        if !out.is_empty() {
            self.sent.push(out);
        }
    }

    fn warm(&self, key: &[u8]) {
        write_out(self.log());
        let warmed = self.ours.warm(VNODE, key, UnixMs(self.now), Patience::Wait);
        assert!(matches!(warmed, Warmed::Done), "{warmed:?}");
    }

    fn deliver(&self, bytes: &[u8]) {
        let (key, record) = record::decode(bytes).unwrap();
        let now = UnixMs(self.now);
        let mut merged = self.ours.write(VNODE, now, |keys| keys.merge(key, &record, bytes));
        if merged == Merged::Cold {
            self.warm(key);
            merged = self.ours.write(VNODE, now, |keys| keys.merge(key, &record, bytes));
        }
        let model = self.model.write(VNODE, now, |keys| keys.merge(key, &record, bytes));
        assert_eq!((merged, model), (Merged::Done, Merged::Done));
    }

    fn cool(&self, located: bool) {
        self.ours.set_budget(1);
        self.ours.make_room(UnixMs(self.now));
        self.ours.set_budget(if located { PLENTY } else { 0 });
    }

    fn compact(&mut self, frames: &[Frame], count: usize) {
        let end = (self.gone + count).min(frames.len());
        for frame in &frames[self.gone..end] {
            self.ours.write(VNODE, UnixMs(self.now), |keys| {
                if keys.is_live(frame.kind, frame.place, &frame.payload) {
                    keys.move_forward(frame.place, &frame.payload);
                    assert!(
                        !keys.is_live(frame.kind, frame.place, &frame.payload)
                            || keys.read().tier(frame.key().unwrap()) != Tier::Cold
                    );
                }
            });
        }
        self.gone = end;
    }

    fn lose(&self, frames: &[Frame], from: usize) -> bool {
        let Some(first) = frames.get(self.gone..).and_then(|left| left.get(from)) else {
            return false;
        };
        let last = frames.last().unwrap();
        let end = last.place.offset as usize + HEADER_SIZE + last.payload.len();
        let upto = Place { offset: end as u32, ..last.place };
        assert!(self.ours.reappend(Lost { lane: 0, from: first.place, upto }));
        true
    }

    /// Takes one step; says whether frames were lost, and from which on.
    fn take(&mut self, step: &Step, frames: &[Frame]) -> Option<usize> {
        match step {
            Step::Write(key, write) => self.write(*key, write),
            Step::Elsewhere(key, write) => {
                let (change, mut out) = (self.change(&self.other, *key, write), BytesMut::new());
                self.other.write(VNODE, UnixMs(self.now), |keys| {
                    keys.apply(&name(*key), &change, actor(2), &mut out).unwrap();
                });
                self.theirs.push(out);
            }
            Step::Deliver(nth) => {
                if let Some(nth) = nth.checked_rem(self.theirs.len()) {
                    self.deliver(&self.theirs[nth]);
                }
            }
            Step::DeliverWhole(key) => {
                let mut out = BytesMut::new();
                if read(&self.other, self.now, |keys| keys.record(&name(*key), &mut out)) {
                    self.deliver(&out);
                }
            }
            Step::Share(nth) => {
                if let Some(nth) = nth.checked_rem(self.sent.len()) {
                    let bytes = &self.sent[nth];
                    let (key, record) = record::decode(bytes).unwrap();
                    let merged = self
                        .other
                        .write(VNODE, UnixMs(self.now), |keys| keys.merge(key, &record, bytes));
                    assert_eq!(merged, Merged::Done);
                }
            }
            Step::Collect(key) => self.collect(&name(*key)),
            Step::Wait(ms) => self.now += ms,
            Step::Look(key) => drop(seen(&self.ours, &name(*key), self.now)),
            Step::Cool { located } => self.cool(*located),
            Step::Warm(key) => self.warm(&name(*key)),
            Step::Compact(count) => self.compact(frames, *count),
            Step::Lose(from) => {
                return self.lose(frames, *from).then_some(self.gone + from);
            }
            Step::Clear if self.sole => {
                self.ours.write(VNODE, UnixMs(self.now), |keys| keys.clear_sole());
                self.model.write(VNODE, UnixMs(self.now), |keys| keys.clear_sole());
            }
            Step::Clear => {}
        }
        None
    }

    fn collect(&mut self, key: &[u8]) {
        let collect = |keyspace: &Keyspace| {
            let mut out = BytesMut::new();
            keyspace.write(VNODE, UnixMs(self.now), |keys| {
                let gone = keys.collect(key, actor(1), &mut out);
                keys.settle_expiry();
                (gone, keys.missing().len())
            })
        };
        let (mut gone, missing) = collect(&self.ours);
        if missing > 0 {
            self.warm(key);
            gone = collect(&self.ours).0;
        }
        assert_eq!(gone, collect(&self.model).0);
        let due = |keyspace: &Keyspace| keyspace.expiry_due(VNODE, UnixMs(self.now));
        assert_eq!(due(&self.ours), due(&self.model));
    }
}

fn play(steps: &[Step], sole: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(open(&folder), sole);
    // What was held after how many frames.
    let mut history = vec![(0, Held(BTreeMap::new()))];
    let mut kept: Vec<Frame> = Vec::new();
    // A clear that is said again is followed by what came after it: in between, it is not there.
    let mut between = BTreeSet::new();
    for step in steps {
        let lost = world.take(step, &kept);
        check_same(&world.ours, &world.model, world.now);
        check_sums(&world.ours);
        kept = frames(world.log());
        check_log(&world.ours, &kept[world.gone..]);
        if let Some(from) = lost {
            // Without what was lost, the log says the same.
            let before = history.last().unwrap().0;
            let rest = std::mem::take(&mut kept);
            let left: Vec<Frame> = rest
                .into_iter()
                .enumerate()
                .filter(|(at, _)| !(from..before).contains(at) && *at >= world.gone)
                .map(|(_, frame)| frame)
                .collect();
            assert_eq!(held(&replay(&left, sole, false)), held(&world.model));
            kept = frames(world.log());
            between.extend(before + 1..kept.len());
        }
        history.push((kept.len(), held(&world.model)));
    }
    check_prefixes(&world, &kept, &history, &between);
    let again = replay(&kept[world.gone..], sole, true);
    check_same(&again, &world.model, world.now);
    check_sums(&again);
    check_log(&again, &kept[world.gone..]);
    if !sole {
        assert_eq!(again.hlc(VNODE), world.model.hlc(VNODE));
    }
    assert_eq!(world.ours.hlc(VNODE), world.model.hlc(VNODE));
}

/// What is there after any number of frames is what was there then.
fn check_prefixes(
    world: &World,
    frames: &[Frame],
    history: &[(usize, Held)],
    between: &BTreeSet<usize>,
) {
    let replayed = Keyspace::new(2, SEED);
    replayed.set_sole(VNODE, world.sole);
    let mut at = 0;
    for count in 0..=frames.len() {
        while history.get(at + 1).is_some_and(|(upto, _)| *upto <= count) {
            at += 1;
        }
        if !between.contains(&count) {
            assert_eq!(held(&replayed), history[at].1, "after {count} frames");
        }
        if let Some(frame) = frames.get(count) {
            replayed.write(VNODE, UnixMs(0), |keys| {
                keys.replay(frame.kind, frame.place, &frame.payload).unwrap();
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_cold_or_replayed_is_what_is_held(
        steps in proptest::collection::vec(step(), 0..50),
        sole: bool,
    ) {
        play(&steps, sole);
    }
}
