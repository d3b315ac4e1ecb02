//! The keyspace against what it must be: sums equal a walk, replicas that merge records agree,
//! and both equal a map that knows only Redis's rules.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;

use crate::anti_entropy::tree::Tree;
use crate::base::hash::{Digest, HashSeed};
use crate::base::id::{Actor, Boot, NodeId, VnodeId};
use crate::base::time::UnixMs;
use crate::value::change::{Amount, Change, Expire};
use crate::value::record;
use crate::value::view::Views;

use super::keyspace::{Keyspace, VnodeCounts};
use super::vnode_write::Merged;

const VNODE: VnodeId = VnodeId(1);
const SEED: HashSeed = HashSeed(7);

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, size: usize, expire: Option<u64> },
    Delete(u8),
    Count(u8, i8),
    Expire(u8, Option<u64>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..12;
    prop_oneof![
        4 => (key.clone(), 0usize..700, proptest::option::of(1u64..50))
            .prop_map(|(key, size, expire)| Step::Put { key, size, expire }),
        2 => key.clone().prop_map(Step::Delete),
        2 => (key.clone(), any::<i8>()).prop_map(|(key, by)| Step::Count(key, by)),
        1 => (key, proptest::option::of(1u64..50)).prop_map(|(key, at)| Step::Expire(key, at)),
        1 => (1u64..30).prop_map(Step::Wait),
    ]
}

/// What Redis would hold: the string and its end.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn seen(model: &Model, key: &[u8], now: u64) -> Option<Vec<u8>> {
    model.get(key).filter(|(_, end)| end.is_none_or(|end| end > now)).map(|(v, _)| v.clone())
}

fn change_of(step: &Step, now: u64, model: &mut Model) -> Option<(Vec<u8>, Change<'static>)> {
    let name = |key: &u8| format!("key:{key}").into_bytes();
    Some(match step {
        Step::Put { key, size, expire } => {
            let value: Vec<u8> = (0..*size).map(|i| (i / 7) as u8 ^ key).collect();
            let end = expire.map(|after| now + after);
            model.insert(name(key), (value.clone(), end));
            let expire = end.map_or(Expire::Clear, |end| Expire::At(UnixMs(end)));
            (name(key), Change::Put { value: Cow::Owned(value), expire })
        }
        Step::Delete(key) => {
            seen(model, &name(key), now)?;
            model.remove(&name(key));
            (name(key), Change::Delete)
        }
        Step::Count(key, by) => {
            let before = seen(model, &name(key), now);
            let number: i64 = match &before {
                None => 0,
                Some(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            };
            let end = before.and_then(|_| model.get(&name(key))).and_then(|(_, end)| *end);
            let text = (number + i64::from(*by)).to_string().into_bytes();
            model.insert(name(key), (text, end));
            (name(key), Change::Increment(Amount::Int(i128::from(*by))))
        }
        Step::Expire(key, after) => {
            seen(model, &name(key), now)?;
            let end = after.map(|after| now + after);
            model.get_mut(&name(key))?.1 = end;
            (name(key), Change::Expire(end.map(UnixMs)))
        }
        Step::Wait(_) => return None,
    })
}

fn write(keyspace: &Keyspace, key: &[u8], change: &Change<'_>, now: u64) {
    let actor = Actor::new(NodeId(9), Boot(1));
    keyspace.write(VNODE, UnixMs(now), |keys| {
        keys.apply_blind(key, change, actor, &mut BytesMut::new()).unwrap();
    });
}

fn forget(keyspace: &Keyspace, key: &[u8], state: Digest) -> bool {
    let actor = Actor::new(NodeId(9), Boot(1));
    keyspace.write(VNODE, UnixMs(5), |keys| keys.forget(key, state, actor))
}

#[test]
fn what_has_changed_since_is_not_forgotten() {
    let keyspace = Keyspace::new(2, SEED);
    let add = Change::Increment(Amount::Int(1));
    let state = |key: &[u8]| keyspace.read(VNODE, UnixMs(9), |keys| keys.state_digest(key));
    for key in [&b"key"[..], b""] {
        write(&keyspace, key, &add, 1);
        let first = state(key);
        write(&keyspace, key, &add, 2);
        assert!(!forget(&keyspace, key, first), "it has changed");
        assert!(forget(&keyspace, key, state(key)));
        assert!(!forget(&keyspace, key, Digest::NONE), "it is not there");
        assert_eq!(keyspace.counts(VNODE), VnodeCounts::default());
        check_sums(&keyspace);
    }
}

#[test]
fn a_stand_in_writes_as_a_replica_until_it_has_forgotten() {
    let keyspace = Keyspace::new(2, SEED);
    let context = |key: &[u8]| {
        let entry = keyspace.read(VNODE, UnixMs(9), |keys| keys.entry(key));
        entry.map(|entry| entry.context().to_string())
    };
    let add = Change::Increment(Amount::Int(1));
    (1..3).for_each(|now| write(&keyspace, b"a", &add, now));
    assert_eq!(context(b"a").as_deref(), Some("D([n9,2])"));
    let state = keyspace.read(VNODE, UnixMs(9), |keys| keys.state_digest(b"a"));
    assert!(forget(&keyspace, b"a", state));
    (3..5).for_each(|now| write(&keyspace, b"a", &add, now));
    assert_eq!(context(b"a").as_deref(), Some("D()+[n9,1]+[n9,2]"));
    let put = Change::Put { value: Cow::Borrowed(b"7"), expire: Expire::Clear };
    write(&keyspace, b"a", &put, 5);
    assert_eq!(context(b"a").as_deref(), Some("D([n9,3])"));
}

/// The sums that the keyspace keeps, worked out by a walk.
fn check_sums(keyspace: &Keyspace) {
    let mut tree = Tree::new();
    let (mut live, mut held) = (0, 0);
    keyspace.read(VNODE, UnixMs(0), |keys| {
        keys.records(
            |_| true,
            |key, _| {
                let hash = SEED.key(key);
                let entry = keys.entry(key).unwrap();
                tree.add(hash, entry.digest(SEED, hash));
                live += usize::from(entry.view(UnixMs(0)).is_some());
                held += 1;
            },
        );
    });
    let counts = keyspace.counts(VNODE);
    assert_eq!((counts.live, counts.held), (live, held));
    keyspace.tree(VNODE, |kept| assert_eq!(kept.buckets(), tree.buckets()));
}

fn check_views(keyspace: &Keyspace, model: &Model, now: u64) {
    keyspace.read(VNODE, UnixMs(now), |keys| {
        for key in 0..12u8 {
            let name = format!("key:{key}").into_bytes();
            let view = keys.view(&name);
            let shown = view.map(|view| view.string().unwrap().into_owned());
            assert_eq!(shown, seen(model, &name, now), "key:{key}");
        }
    });
}

fn play(steps: &[Step], sole: bool) {
    let keyspace = Keyspace::new(2, SEED);
    keyspace.set_sole(VNODE, sole);
    let replica = Keyspace::new(2, SEED);
    let actor = Actor::new(NodeId(1), Boot(1));
    let (mut model, mut now, mut records) = (Model::new(), 1_000, Vec::new());
    for step in steps {
        if let Step::Wait(ms) = step {
            now += ms;
        }
        if let Some((key, change)) = change_of(step, now, &mut model) {
            let mut out = BytesMut::new();
            keyspace.write(VNODE, UnixMs(now), |keys| {
                keys.apply(&key, &change, actor, &mut out).unwrap();
            });
            records.push(out);
        }
        check_views(&keyspace, &model, now);
    }
    check_sums(&keyspace);
    if sole {
        let alive = model.len();
        let held = keyspace.counts(VNODE).held;
        assert_eq!(held, alive, "a sole replica keeps no tombstones");
        return;
    }
    // The records are the state: replayed elsewhere in another order, and twice, they give it.
    for bytes in records.iter().rev().chain(&records) {
        let (key, record) = record::decode(bytes).unwrap();
        replica.write(VNODE, UnixMs(now), |keys| {
            assert_eq!(keys.merge(key, &record, bytes), Merged::Done);
        });
    }
    check_views(&replica, &model, now);
    check_sums(&replica);
    let root = |keyspace: &Keyspace| keyspace.tree(VNODE, Tree::root);
    assert_eq!(root(&replica), root(&keyspace));
    assert_eq!(replica.hlc(VNODE), keyspace.hlc(VNODE));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_keyspace_is_redis_and_its_records_are_its_state(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        play(&steps, false);
        play(&steps, true);
    }

    /// Scans of any cut of the positions give every key once.
    #[test]
    fn scans_of_any_cut_give_every_key_once(
        count in 0usize..300,
        mut cuts in proptest::collection::vec(0u32..1 << 16, 0..8),
    ) {
        let keyspace = Keyspace::new(2, SEED);
        let mut out = BytesMut::new();
        let put = Change::Put { value: Cow::Borrowed(b"v"), expire: Expire::Clear };
        keyspace.write(VNODE, UnixMs(1), |keys| {
            for key in 0..count {
                let key = format!("k{key}");
                keys.apply(key.as_bytes(), &put, Actor(1), &mut out).unwrap();
            }
        });
        cuts.extend([0, 1 << 16]);
        cuts.sort_unstable();
        let mut found = Vec::new();
        for range in cuts.windows(2) {
            keyspace.read(VNODE, UnixMs(2), |keys| {
                keys.scan(range[0]..range[1], |key, _| found.push(key.to_vec()));
            });
        }
        found.sort();
        let distinct = found.len();
        found.dedup();
        prop_assert_eq!((found.len(), distinct), (count, count));
    }
}
