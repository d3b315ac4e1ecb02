//! Concurrent values, by hand: KV.GET, KV.SET, KV.DEL, KV.CLOCK and KV.COMPARE.
//!
//! The client's side of conflict resolution in Dynamo (§4.4): a read shows every concurrent value
//! and gives a *context token*, which says what was seen; a write brings the token back.
//!
//! ```text
//!                   KV.SET k A                                        D([n1,1])
//!                       │   token t1
//!            ┌──────────┴──────────┐
//!   KV.SET k Aa CONTEXT t1   KV.SET k AA CONTEXT t1          neither has seen the other
//!            └──────────┬──────────┘
//!                  KV.GET k  ─►  Aa, AA, token t2
//!                       │
//!              KV.SET k Aaa CONTEXT t2                               one value again
//! ```
//!
//! Invariant: a write removes what its token has seen and nothing else. Without a token nothing was
//! seen, so everything stays.

use std::borrow::Cow;

use crate::base::hash::HashSeed;
use crate::resp::reply::Reply;
use crate::value::change::{Change, Seen};
use crate::value::fields::Fields;
use crate::value::token::Seal;
use crate::value::view::Kind;
use crate::version::context::{Context, Relation};

use super::fault::{Fault, answer};
use super::number::is;
use super::spec::Call;
use super::string::{Family, Options};

/// `KV.GET key`: the values, type by type (the visible type last, and of strings the oldest first:
/// GET answers the last one), their types, the version vector and a token. A collection is one
/// value. Nobody asks for a type here, so no type is wrong.
pub fn get(call: &mut Call<'_, '_>) {
    let key = call.args[1];
    let entry = call.views.history(key).unwrap_or_default();
    let (strings, kinds) = (entry.values(call.now), entry.kinds(call.now));
    let collections = entry.collections(call.now);
    call.reply.map(4);
    call.reply.bulk(b"values");
    call.reply.array(strings.len() + collections.len());
    let mut collections = collections.iter();
    for kind in &kinds {
        match kind {
            Kind::String => strings.iter().for_each(|value| call.reply.bulk(&value.string())),
            _ => collections.next().into_iter().for_each(|fields| whole(fields, call.reply)),
        }
    }
    call.reply.bulk(b"types");
    call.reply.array(kinds.len());
    kinds.iter().for_each(|kind| call.reply.bulk(kind.name().as_bytes()));
    call.reply.bulk(b"clock");
    call.reply.bulk(entry.context().to_string().as_bytes());
    call.reply.bulk(b"context");
    let token = Seal::of(call.views.seed()).token(key, entry.context());
    call.reply.bulk(token.as_bytes());
}

/// Answers a whole collection: a hash as a map, a set and a list as arrays, a sorted set as an array
/// of members with their scores.
fn whole(fields: &Fields<'_>, reply: &mut Reply) {
    match fields.kind() {
        Kind::Hash => reply.map(fields.len()),
        _ => reply.array(fields.len()),
    }
    for element in fields.iter() {
        match fields.kind() {
            Kind::Hash => {
                reply.bulk(&element.name);
                reply.bulk(&element.value);
            }
            Kind::Zset => {
                reply.array(2);
                reply.bulk(&element.name);
                reply.double(element.score);
            }
            Kind::Set => reply.bulk(&element.name),
            Kind::List | Kind::String => reply.bulk(&element.value),
        }
    }
}

/// `KV.CLOCK key`.
pub fn clock(call: &mut Call<'_, '_>) {
    let entry = call.views.history(call.args[1]).unwrap_or_default();
    call.reply.bulk(entry.context().to_string().as_bytes());
}

/// `KV.SET key value [CONTEXT token] [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub fn set(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, value) = (call.args[1], call.args[2]);
        let options = Options::parse(&call.args[3..], Family::KvSet)?;
        let expire = options.expire(call.now, "kv.set")?;
        let context = match options.context {
            Some(token) => Seal::of(call.views.seed()).open(key, token)?,
            None => Context::new(),
        };
        if options.has_condition() && options.refuses(call.views.view(key).is_some()) {
            call.reply.null();
            return Ok(());
        }
        let seen = Seen { context, put: Some((Cow::Borrowed(value), expire)) };
        call.changes.push((key, Change::Seen(Box::new(seen))));
        call.reply.ok();
        Ok(())
    });
}

/// `KV.DEL key CONTEXT token`: 1 if there was something to remove.
pub fn del(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let (key, token) = (call.args[1], call.args[3]);
        if !is(call.args[2], "CONTEXT") {
            return Err(Fault::Syntax);
        }
        let context = Seal::of(call.views.seed()).open(key, token)?;
        let entry = call.views.history(key).unwrap_or_default();
        let is_there = entry.view(call.now).is_some() && entry.is_value_seen(&context);
        // What the client saw and this node has not heard of must not come to life here later.
        if is_there || !entry.context().descends(&context) {
            let seen = Seen { context, put: None };
            call.changes.push((key, Change::Seen(Box::new(seen))));
        }
        call.reply.integer(i64::from(is_there));
        Ok(())
    });
}

/// `KV.COMPARE token1 token2`, in the cluster with this seed.
pub fn compare(seed: HashSeed, args: &[&[u8]], reply: &mut Reply) {
    match Seal::of(seed).compare(args[1], args[2]) {
        Ok(relation) => reply.simple(match relation {
            Relation::Equal => "equal",
            Relation::Descends => "descends",
            Relation::Precedes => "precedes",
            Relation::Concurrent => "concurrent",
        }),
        Err(error) => reply.error(Fault::from(error).line()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::{Actor, Boot, NodeId};
    use crate::base::limits::SIBLINGS_MAX;
    use crate::base::time::{Dot, UnixMs};
    use crate::command::model::ask;
    use crate::command::spec::Keyed;
    use crate::resp::reply::Protocol;
    use crate::value::apply::ApplyError;
    use crate::value::change::Edit;
    use crate::value::entry::Entry;
    use crate::value::view::{View, Views};

    const SEED: HashSeed = HashSeed(11);

    /// One replica's keys.
    #[derive(Clone)]
    struct Replica {
        node: u16,
        now: UnixMs,
        keys: HashMap<Vec<u8>, Entry>,
    }

    impl Views for Replica {
        fn view(&self, key: &[u8]) -> Option<View<'_>> {
            self.keys.get(key)?.view(self.now)
        }

        fn history(&self, key: &[u8]) -> Option<Entry> {
            self.keys.get(key).cloned()
        }

        fn seed(&self) -> HashSeed {
            SEED
        }
    }

    fn keyed(name: &str) -> Keyed {
        match name {
            "KV.GET" => get,
            "KV.SET" => set,
            "KV.DEL" => del,
            "KV.CLOCK" => clock,
            "GET" => crate::command::string::get,
            "SET" => crate::command::string::set,
            "DEL" => crate::command::key::del_part,
            name => match crate::command::table::lookup(name.as_bytes()).map(|spec| spec.run) {
                Some(crate::command::spec::Run::Slot(keyed)) => keyed,
                _ => panic!("no {name}"),
            },
        }
    }

    impl Replica {
        fn new(node: u16) -> Replica {
            Replica { node, now: UnixMs(1_000_000), keys: HashMap::new() }
        }

        /// Runs and applies a command, given as words.
        fn say(&mut self, words: &str) -> String {
            let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let name = words.split(' ').next().expect("a name");
            let (reply, changes) = ask(self, self.now, Protocol::Resp2, keyed(name), &args);
            let mut refused = None;
            for (key, change) in changes {
                refused = self.change(key, &change);
            }
            match refused {
                Some(error) => format!("-{error}"),
                None => String::from_utf8(reply).expect("text").replace("\r\n", " "),
            }
        }

        fn change(&mut self, key: &[u8], change: &Change<'_>) -> Option<ApplyError> {
            let entry = self.keys.entry(key.to_vec()).or_default();
            let seen = match change {
                Change::Seen(seen) => seen.context.hlc_max(),
                _ => entry.hlc_max(),
            };
            let hlc = entry.hlc_max().max(seen).next(self.now);
            let dot = Dot::new(hlc, Actor::new(NodeId(self.node), Boot(1)));
            entry.apply(change, dot, self.now).err()
        }

        fn values(&self, key: &str) -> Vec<String> {
            let Some(entry) = self.keys.get(key.as_bytes()) else { return vec![] };
            let text = |body: crate::value::view::Body<'_>| {
                String::from_utf8(body.string().into_owned()).expect("text")
            };
            entry.values(self.now).into_iter().map(text).collect()
        }

        fn token(&self, key: &str) -> String {
            let entry = self.history(key.as_bytes()).unwrap_or_default();
            Seal::of(SEED).token(key.as_bytes(), entry.context())
        }

        fn learn(&mut self, other: &Replica) {
            for (key, entry) in &other.keys {
                self.keys.entry(key.clone()).or_default().join(entry);
            }
        }
    }

    #[test]
    fn a_read_shows_values_types_clock_and_token() {
        let mut node = Replica::new(1);
        node.say("KV.SET k A");
        node.say("KV.SET k B");
        let token = node.token("k");
        let reply = node.say("KV.GET k");
        let expected = format!(
            "*8 $6 values *2 $1 A $1 B $5 types *1 $6 string $5 clock $9 D([n1,2]) $7 context \
             ${} {token} ",
            token.len()
        );
        assert_eq!(reply, expected);
        assert_eq!(node.say("KV.CLOCK k"), "$9 D([n1,2]) ");
        assert_eq!(node.say("GET k"), "$1 B ");
    }

    #[test]
    fn a_missing_key_gives_a_token_that_works() {
        let mut node = Replica::new(1);
        let token = node.token("k");
        let reply = node.say("KV.GET k");
        assert!(reply.starts_with("*8 $6 values *0 $5 types *0 $5 clock $3 D() "), "{reply}");
        assert!(reply.contains(&token));
        assert_eq!(node.say(&format!("KV.SET k v CONTEXT {token}")), "+OK ");
        assert_eq!(node.say(&format!("KV.SET k w CONTEXT {token}")), "+OK ");
        assert_eq!(node.values("k"), ["v", "w"]);
        assert_eq!(node.say(&format!("KV.DEL k CONTEXT {token}")), ":0 ");
        assert_eq!(node.values("k"), ["v", "w"]);
    }

    #[test]
    fn expired_keys_are_seen_too() {
        let mut node = Replica::new(1);
        node.say("KV.SET k v PX 10");
        node.now = UnixMs(node.now.0 + 10);
        assert!(node.say("KV.GET k").starts_with("*8 $6 values *0 $5 types *0 $5 clock $9 "));
        let token = node.token("k");
        assert_eq!(node.say(&format!("KV.DEL k CONTEXT {token}")), ":0 ");
        assert_eq!(node.say(&format!("KV.SET k w KEEPTTL CONTEXT {token}")), "+OK ");
        assert_eq!(node.values("k"), ["w"]);
    }

    /// Five writers gave the key a type each, without having heard of each other.
    #[test]
    fn collections_are_values_too() {
        let mut nodes = [1, 2, 3, 4, 5].map(Replica::new);
        nodes[0].say("KV.SET k text");
        nodes[1].say("HSET k f v");
        nodes[2].say("SADD k m");
        let score = Change::edit(Kind::Zset, [Edit::score(&b"z"[..], 1.5)]);
        assert_eq!(nodes[3].change(b"k", &score), None);
        let pushes = [&b"one"[..], b"two"].map(|value| Edit::PushRight(Cow::Borrowed(value)));
        assert_eq!(nodes[4].change(b"k", &Change::edit(Kind::List, pushes)), None);
        for (node, values) in [
            (1, "*1 *2 $1 f $1 v $5 types *1 $4 hash "),
            (2, "*1 *1 $1 m $5 types *1 $3 set "),
            (3, "*1 *1 *2 $1 z $3 1.5 $5 types *1 $4 zset "),
            (4, "*1 *2 $3 one $3 two $5 types *1 $4 list "),
        ] {
            let reply = nodes[node].say("KV.GET k");
            assert!(reply.starts_with(&format!("*8 $6 values {values}$5 clock ")), "{reply}");
        }
        let mut all = nodes[0].clone();
        nodes[1..].iter().for_each(|other| all.learn(other));
        // All were written in one millisecond: the actor decides, and the list is seen.
        let values = "*5 $4 text *2 $1 f $1 v *1 $1 m *1 *2 $1 z $3 1.5 *2 $3 one $3 two";
        let types = "*5 $6 string $4 hash $3 set $4 zset $4 list";
        let reply = all.say("KV.GET k");
        assert!(reply.starts_with(&format!("*8 $6 values {values} $5 types {types} ")), "{reply}");
        let args: [&[u8]; 2] = [b"KV.GET", b"k"];
        let (reply, _) = ask(&all, all.now, Protocol::Resp3, get, &args);
        let reply = String::from_utf8(reply).expect("text").replace("\r\n", " ");
        let values = "*5 $4 text %1 $1 f $1 v *1 $1 m *1 *2 $1 z ,1.5 *2 $3 one $3 two";
        assert!(reply.starts_with(&format!("%4 $6 values {values} $5 types {types} ")), "{reply}");
        // What the visible type's next writer has seen goes.
        let push = Edit::PushRight(Cow::Borrowed(&b"three"[..]));
        assert_eq!(all.change(b"k", &Change::edit(Kind::List, [push])), None);
        let reply = all.say("KV.GET k");
        let rest = "*1 *3 $3 one $3 two $5 three $5 types *1 $4 list $5 clock ";
        assert!(reply.starts_with(&format!("*8 $6 values {rest}")), "{reply}");
        let token = all.token("k");
        assert_eq!(all.say(&format!("KV.SET k new CONTEXT {token}")), "+OK ");
        assert!(all.say("KV.GET k").starts_with("*8 $6 values *1 $3 new $5 types *1 $6 string "));
    }

    #[test]
    fn conditions_and_times_to_live() {
        let mut node = Replica::new(1);
        assert_eq!(node.say("KV.SET k v XX"), "$-1 ");
        assert_eq!(node.say("KV.SET k v NX EX 100"), "+OK ");
        let token = node.token("k");
        assert_eq!(node.say(&format!("KV.SET k w CONTEXT {token} NX")), "$-1 ");
        assert_eq!(
            node.say(&format!("kv.set k w keepttl context {token} xx").replace("kv.set", "KV.SET")),
            "+OK "
        );
        let view = node.view(b"k").expect("it is there");
        assert_eq!(view.expire_at, Some(UnixMs(1_100_000)));
        for refused in ["GET", "NX XX", "EX", "EX 1 KEEPTTL", "CONTEXT", "PERSIST"] {
            assert_eq!(node.say(&format!("KV.SET k v {refused}")), "-ERR syntax error ");
        }
        let twice = format!("KV.SET k v CONTEXT {token} CONTEXT {token}");
        assert_eq!(node.say(&twice), "-ERR syntax error ");
        let never = node.say("KV.SET k v EX 0");
        assert_eq!(never, "-ERR invalid expire time in 'kv.set' command ");
        assert_eq!(node.say(&format!("KV.DEL k SEEN {token}")), "-ERR syntax error ");
    }

    #[test]
    fn other_tokens_are_refused() {
        let mut node = Replica::new(1);
        node.say("SET k v");
        node.say("SET j v");
        let other = node.token("j");
        for command in ["KV.SET k v CONTEXT", "KV.DEL k CONTEXT"] {
            let reply = node.say(&format!("{command} {other}"));
            assert_eq!(reply, "-ERR the context token is of another key ");
            for bad in ["x", "D([n1,1])", &other[1..]] {
                let reply = node.say(&format!("{command} {bad}"));
                assert!(reply.starts_with("-ERR this is no context token"), "{reply}");
            }
        }
    }

    #[test]
    fn tokens_are_compared() {
        let mut node = Replica::new(1);
        let (nothing, mut other) = (node.token("k"), node.clone());
        other.node = 2;
        node.say("SET k a");
        other.say("SET k b");
        let (one, two) = (node.token("k"), other.token("k"));
        node.learn(&other);
        let both = node.token("k");
        let compared = |first: &str, second: &str| {
            let mut reply = Reply::new(Protocol::Resp2);
            let args: [&[u8]; 3] = [b"KV.COMPARE", first.as_bytes(), second.as_bytes()];
            compare(SEED, &args, &mut reply);
            String::from_utf8(reply.bytes.to_vec()).expect("text")
        };
        assert_eq!(compared(&one, &two), "+concurrent\r\n");
        assert_eq!(compared(&both, &two), "+descends\r\n");
        assert_eq!(compared(&nothing, &two), "+precedes\r\n");
        assert_eq!(compared(&both, &both), "+equal\r\n");
        let foreign = compared(&node.token("j"), &both);
        assert_eq!(foreign, "-ERR the context token is of another key\r\n");
        assert!(compared("", &both).starts_with("-ERR this is no context token"));
    }

    #[test]
    fn too_many_siblings_are_refused_until_resolved() {
        let mut node = Replica::new(1);
        for number in 0..SIBLINGS_MAX {
            assert_eq!(node.say(&format!("KV.SET k {number}")), "+OK ");
        }
        assert!(node.say("KV.SET k more").starts_with("-TOOMANYSIBLINGS "));
        assert_eq!(node.values("k").len(), SIBLINGS_MAX);
        let token = node.token("k");
        assert_eq!(node.say(&format!("KV.SET k one CONTEXT {token}")), "+OK ");
        assert_eq!(node.values("k"), ["one"]);
    }

    proptest! {
        /// Whatever three replicas write and hear, a write with a token removes all that the token's
        /// replica held, and nothing that it had not heard of; and all converge, in any order.
        #[test]
        fn a_token_removes_exactly_what_it_saw(
            steps in vec((0usize..3, 0usize..3, 0u8..6), 0..20),
            (seer, writer, deletes) in (0usize..3, 0usize..3, any::<bool>()),
            later in vec((0usize..3, 0usize..3, 0u8..3), 0..8),
            order in Just([(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]).prop_shuffle(),
        ) {
            let mut replicas = [1, 2, 3].map(Replica::new);
            let mut count = 0;
            for (at, from, what) in steps {
                count += 1;
                let token = replicas[from].token("k");
                match what {
                    0 => replicas[at].say(&format!("SET k {count}")),
                    1 => replicas[at].say(&format!("KV.SET k {count}")),
                    2 => replicas[at].say(&format!("KV.SET k {count} CONTEXT {token}")),
                    3 => replicas[at].say("DEL k"),
                    _ => {
                        let other = replicas[from].clone();
                        replicas[at].learn(&other);
                        String::new()
                    }
                };
            }
            let (token, seen) = (replicas[seer].token("k"), replicas[seer].clone());
            for (at, from, what) in later {
                count += 1;
                match what {
                    0 => { replicas[at].say(&format!("KV.SET k {count}")); }
                    _ => { let other = replicas[from].clone(); replicas[at].learn(&other); }
                }
            }
            let mut unresolved = replicas[0].clone();
            replicas.iter().for_each(|other| unresolved.learn(other));
            let command = if deletes { "KV.DEL k" } else { "KV.SET k new" };
            replicas[writer].say(&format!("{command} CONTEXT {token}"));
            for _ in 0..2 {
                for (to, from) in order {
                    let other = replicas[from].clone();
                    replicas[to].learn(&other);
                }
            }
            let gone = seen.values("k");
            let mut left = unresolved.values("k");
            left.retain(|value| !gone.contains(value));
            left.extend((!deletes).then(|| "new".to_owned()));
            let mut ends = replicas.each_ref().map(|replica| replica.values("k"));
            ends.iter_mut().for_each(|values| values.sort());
            left.sort();
            prop_assert_eq!(&ends, &[left.clone(), left.clone(), left]);
        }
    }
}
