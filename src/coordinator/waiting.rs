//! Who waits for which key, in order of arrival (pure).
//!
//! A blocking command that finds nothing waits at its key's coordinator. When one of its keys
//! changes, it is run again, as any command is. That may take a while (replicas may be asked first),
//! and it may find nothing again:
//!
//! ```text
//!              begin                    served
//!  enter ──► queued ───────► running ───────────► gone
//!              ▲                │ found nothing
//!              │                ├─ its end was called meanwhile ──► gone, with that end
//!              └────────────────┘ if a key changed meanwhile, to be looked at at once
//! ```
//!
//! Invariants: of those who wait for one kind of value at one key, one runs at a time, the first of
//! them, so nobody overtakes. A change is never lost: who runs while a key changes is told so when
//! it comes back, and who is queued is found by whoever made the change. An end that is called while
//! one runs takes effect only if the run finds nothing: what was taken is never thrown away.

use std::collections::{BTreeSet, HashMap};

use crate::resp::reply::{Protocol, Reply};
use crate::value::view::Kind;

/// Why a wait ends without having been served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Its time is over, or a client says so.
    Timeout,
    /// A client says that it failed.
    Error,
    /// Whoever waited is gone.
    Gone,
}

impl Ending {
    /// What whoever waited is answered.
    pub fn reply(self, protocol: Protocol) -> Reply {
        let mut reply = Reply::new(protocol);
        match self {
            Ending::Timeout | Ending::Gone => reply.null_array(),
            Ending::Error => reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK"),
        }
        reply
    }

    /// As peers carry it.
    pub const fn code(self) -> u8 {
        match self {
            Ending::Timeout => 0,
            Ending::Error => 1,
            Ending::Gone => 2,
        }
    }

    /// As a peer brought it.
    pub const fn of(code: u8) -> Option<Ending> {
        match code {
            0 => Some(Ending::Timeout),
            1 => Some(Ending::Error),
            2 => Some(Ending::Gone),
            _ => None,
        }
    }
}

/// A wait's number; later ones are higher.
pub type WaitId = u64;

/// A wait that has left.
#[derive(PartialEq, Eq, Debug)]
pub struct Left<T> {
    /// Its number.
    pub id: WaitId,
    /// What came with it.
    pub wait: T,
    /// Its keys at which others wait.
    pub keys: Vec<Vec<u8>>,
}

/// What becomes of a wait whose run found nothing.
#[derive(PartialEq, Eq, Debug)]
pub enum Returned<T> {
    /// It goes on waiting.
    Waits,
    /// It goes on waiting, and a key changed while it ran: these are to be looked at.
    Look(Vec<Vec<u8>>),
    /// Its end was called while it ran.
    Ended(Left<T>, Ending),
    /// There is none of that number.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Queued,
    Running { changed: bool, ending: Option<Ending> },
}

#[derive(Debug)]
struct Wait<T> {
    kind: Kind,
    keys: Vec<Vec<u8>>,
    state: State,
    inner: T,
}

/// Everybody who waits. `T` is what comes with each.
#[derive(Debug)]
pub struct Waits<T> {
    next: WaitId,
    waits: HashMap<WaitId, Wait<T>>,
    queues: HashMap<Vec<u8>, BTreeSet<WaitId>>,
}

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Waits { next: 1, waits: HashMap::new(), queues: HashMap::new() }
    }
}

impl<T> Waits<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// At how many keys somebody waits.
    pub fn keys(&self) -> usize {
        self.queues.len()
    }

    /// Whether somebody waits at `key`.
    pub fn has(&self, key: &[u8]) -> bool {
        self.queues.contains_key(key)
    }

    /// One comes last to all of its queues, running already or not.
    pub fn enter(&mut self, kind: Kind, keys: &[&[u8]], runs: bool, inner: T) -> WaitId {
        let id = self.next;
        self.next += 1;
        let mut own: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
        own.sort_unstable();
        own.dedup();
        for key in &own {
            self.queues.entry(key.clone()).or_default().insert(id);
        }
        let state = match runs {
            true => State::Running { changed: false, ending: None },
            false => State::Queued,
        };
        self.waits.insert(id, Wait { kind, keys: own, state, inner });
        id
    }

    /// A key has changed; whether somebody waits there, so that it is worth a look.
    pub fn changed(&mut self, key: &[u8]) -> bool {
        let Some(queue) = self.queues.get(key) else { return false };
        for id in queue {
            if let Some(Wait { state: State::Running { changed, .. }, .. }) = self.waits.get_mut(id)
            {
                *changed = true;
            }
        }
        true
    }

    /// There is a value of that kind at `key`: the one whose turn it is runs from now on. None if
    /// nobody waits for it, or somebody who came earlier runs already.
    pub fn begin(&mut self, key: &[u8], kind: Kind) -> Option<(WaitId, &T)> {
        let queue = self.queues.get(key)?;
        let id = *queue.iter().find(|&id| self.waits[id].kind == kind)?;
        let wait = self.waits.get_mut(&id)?;
        if wait.state != State::Queued {
            return None;
        }
        wait.state = State::Running { changed: false, ending: None };
        Some((id, &wait.inner))
    }

    /// A run found nothing.
    pub fn returned(&mut self, id: WaitId) -> Returned<T> {
        let Some(wait) = self.waits.get_mut(&id) else { return Returned::Unknown };
        match wait.state {
            State::Running { ending: Some(ending), .. } => match self.leave(id) {
                Some(left) => Returned::Ended(left, ending),
                None => Returned::Unknown,
            },
            State::Running { changed, .. } => {
                wait.state = State::Queued;
                if changed { Returned::Look(wait.keys.clone()) } else { Returned::Waits }
            }
            State::Queued => Returned::Waits,
        }
    }

    /// One leaves: it was served, or its run ended in an error.
    pub fn leave(&mut self, id: WaitId) -> Option<Left<T>> {
        let Wait { mut keys, inner: wait, .. } = self.waits.remove(&id)?;
        keys.retain(|key| {
            let Some(queue) = self.queues.get_mut(key) else { return false };
            queue.remove(&id);
            let others = !queue.is_empty();
            if !others {
                self.queues.remove(key);
            }
            others
        });
        Some(Left { id, wait, keys })
    }

    /// The end of a wait is called. One that is queued leaves at once; one that runs if it finds
    /// nothing. Of several ends the first counts.
    pub fn end(&mut self, id: WaitId, ending: Ending) -> Option<Left<T>> {
        match &mut self.waits.get_mut(&id)?.state {
            State::Queued => self.leave(id),
            State::Running { ending: called, .. } => {
                called.get_or_insert(ending);
                None
            }
        }
    }

    /// What came with one.
    pub fn find(&self, id: WaitId) -> Option<&T> {
        self.waits.get(&id).map(|wait| &wait.inner)
    }

    /// The numbers of those that `wanted` says yes to, in order of arrival.
    pub fn numbers(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<WaitId> {
        let chosen = self.waits.iter().filter(|(_, wait)| wanted(&wait.inner));
        let mut numbers: Vec<WaitId> = chosen.map(|(&id, _)| id).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Takes those that are queued and that `wanted` says yes to, in order of arrival.
    pub fn take(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<Left<T>> {
        let queued = |wait: &Wait<T>| wait.state == State::Queued;
        let chosen = self.waits.iter().filter(|(_, wait)| queued(wait) && wanted(&wait.inner));
        let mut numbers: Vec<WaitId> = chosen.map(|(&id, _)| id).collect();
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|id| self.leave(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

    fn lists(waits: &mut Waits<char>, keys: &[&[u8]], name: char) -> WaitId {
        waits.enter(Kind::List, keys, false, name)
    }

    fn begun(waits: &mut Waits<char>, key: &[u8]) -> Option<char> {
        waits.begin(key, Kind::List).map(|(_, &name)| name)
    }

    #[test]
    fn who_comes_first_is_served_first() {
        let mut waits = Waits::default();
        let first = lists(&mut waits, &[b"a"], '1');
        lists(&mut waits, &[b"b", b"a", b"a"], '2');
        assert_eq!(begun(&mut waits, b"a"), Some('1'));
        assert_eq!(begun(&mut waits, b"a"), None, "one runs at a time");
        assert_eq!(begun(&mut waits, b"b"), Some('2'), "at another key another one may");
        let left = waits.leave(first).expect("it waited");
        assert_eq!((left.wait, left.keys), ('1', vec![b"a".to_vec()]), "there somebody waits yet");
        assert!(!waits.changed(b"c") && waits.changed(b"a"));
    }

    #[test]
    fn kinds_do_not_stand_in_each_others_way() {
        let mut waits = Waits::default();
        waits.enter(Kind::Zset, &[b"a"], false, 'z');
        lists(&mut waits, &[b"a"], 'l');
        assert_eq!(waits.begin(b"a", Kind::String), None);
        assert_eq!(begun(&mut waits, b"a"), Some('l'));
        assert_eq!(waits.begin(b"a", Kind::Zset).map(|(_, &name)| name), Some('z'));
    }

    #[test]
    fn who_finds_nothing_keeps_its_place() {
        let mut waits = Waits::default();
        let first = lists(&mut waits, &[b"a"], '1');
        lists(&mut waits, &[b"a"], '2');
        assert_eq!(begun(&mut waits, b"a"), Some('1'));
        assert_eq!(waits.returned(first), Returned::Waits);
        assert_eq!(begun(&mut waits, b"a"), Some('1'));
        assert!(waits.changed(b"a"));
        assert_eq!(waits.returned(first), Returned::Look(vec![b"a".to_vec()]));
        assert_eq!(begun(&mut waits, b"a"), Some('1'));
        assert_eq!(waits.returned(first), Returned::Waits, "that change was looked at");
    }

    #[test]
    fn an_end_takes_nothing_away() {
        let mut waits = Waits::default();
        let queued = lists(&mut waits, &[b"a"], 'q');
        assert_eq!(waits.end(queued, Ending::Timeout).map(|left| left.wait), Some('q'));
        assert_eq!(waits.end(queued, Ending::Timeout), None);
        assert!(waits.is_empty() && !waits.has(b"a"));
        let running = waits.enter(Kind::List, &[b"a"], true, 'r');
        assert_eq!(waits.end(running, Ending::Error), None, "it may be served yet");
        assert_eq!(waits.end(running, Ending::Timeout), None);
        let Returned::Ended(left, ending) = waits.returned(running) else { panic!("it ends") };
        assert_eq!((left.wait, ending), ('r', Ending::Error));
        assert_eq!(waits.returned(running), Returned::Unknown);
        let served = waits.enter(Kind::List, &[b"a"], true, 's');
        assert_eq!(waits.end(served, Ending::Gone), None);
        assert_eq!(waits.leave(served).map(|left| left.wait), Some('s'));
    }

    #[test]
    fn those_of_a_lost_peer_are_taken_out() {
        let mut waits = Waits::default();
        for name in ['x', 'y', 'x'] {
            lists(&mut waits, &[b"a"], name);
        }
        let running = waits.enter(Kind::List, &[b"a"], true, 'x');
        assert_eq!(waits.numbers(|&name| name == 'x'), [1, 3, 4]);
        let taken = waits.take(|&name| name == 'x');
        let taken: Vec<WaitId> = taken.into_iter().map(|left| left.id).collect();
        assert_eq!(taken, [1, 3], "not the one that runs");
        assert_eq!(waits.find(running), Some(&'x'));
        assert_eq!(waits.len(), 2);
    }

    #[test]
    fn endings_have_numbers() {
        for ending in [Ending::Timeout, Ending::Error, Ending::Gone] {
            assert_eq!(Ending::of(ending.code()), Some(ending));
        }
        assert_eq!(Ending::of(9), None);
    }

    /// A step of a small world: keys hold so many elements, and threads do one thing at a time.
    #[derive(Clone, Debug)]
    enum Step {
        /// A new wait for these keys.
        Arrive(Vec<usize>),
        /// So many elements come to a key; who made the change looks later.
        Push(usize, usize),
        /// The oldest look that is due.
        Look,
        /// The oldest run that is under way ends.
        Finish,
        /// The end of one of the waits is called.
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(0usize..3, 1..3).prop_map(Step::Arrive),
            (0usize..3, 1usize..3).prop_map(|(key, count)| Step::Push(key, count)),
            Just(Step::Look),
            Just(Step::Look),
            Just(Step::Finish),
            Just(Step::Finish),
            (0usize..20).prop_map(Step::End),
        ]
    }

    /// See [`Step`].
    #[derive(Default)]
    struct World {
        waits: Waits<Vec<usize>>,
        held: [usize; 3],
        looks: VecDeque<usize>,
        runs: VecDeque<WaitId>,
        arrived: Vec<WaitId>,
        served: Vec<(WaitId, usize)>,
        ended: usize,
    }

    impl World {
        fn look_at(&mut self, keys: &[Vec<u8>]) {
            let index = |key: &Vec<u8>| KEYS.iter().position(|known| known == key);
            self.looks.extend(keys.iter().filter_map(index));
        }

        fn act(&mut self, step: &Step) {
            match step {
                Step::Arrive(keys) => {
                    let names: Vec<&[u8]> = keys.iter().map(|&key| KEYS[key]).collect();
                    let id = self.waits.enter(Kind::List, &names, false, keys.clone());
                    self.arrived.push(id);
                    // Something may have come before it stood in the queue.
                    self.looks.extend(keys);
                }
                Step::Push(key, count) => {
                    self.held[*key] += count;
                    if self.waits.changed(KEYS[*key]) {
                        self.looks.push_back(*key);
                    }
                }
                Step::Look => {
                    let Some(key) = self.looks.pop_front() else { return };
                    if self.held[key] > 0
                        && let Some((id, _)) = self.waits.begin(KEYS[key], Kind::List)
                    {
                        self.runs.push_back(id);
                    }
                }
                Step::Finish => self.finish(),
                Step::End(nth) => {
                    let Some(&id) = self.arrived.get(*nth) else { return };
                    if let Some(left) = self.waits.end(id, Ending::Timeout) {
                        self.ended += 1;
                        self.look_at(&left.keys);
                    }
                }
            }
        }

        fn finish(&mut self) {
            let Some(id) = self.runs.pop_front() else { return };
            let keys = self.waits.find(id).expect("it runs").clone();
            match keys.into_iter().find(|&key| self.held[key] > 0) {
                Some(key) => {
                    self.held[key] -= 1;
                    self.served.push((id, key));
                    let left = self.waits.leave(id).expect("it ran");
                    self.look_at(&left.keys);
                }
                None => match self.waits.returned(id) {
                    Returned::Look(keys) => self.look_at(&keys),
                    Returned::Ended(left, _) => {
                        self.ended += 1;
                        self.look_at(&left.keys);
                    }
                    Returned::Waits => {}
                    Returned::Unknown => panic!("it ran"),
                },
            }
        }
    }

    proptest! {
        /// When all is done nobody waits at a key that holds something, and of those who waited
        /// for one key alone, none was served before one that came earlier.
        #[test]
        fn nothing_is_forgotten(steps in proptest::collection::vec(step(), 1..80)) {
            let mut world = World::default();
            steps.iter().for_each(|step| world.act(step));
            while !world.looks.is_empty() || !world.runs.is_empty() {
                world.act(&Step::Look);
                world.act(&Step::Finish);
            }
            for (key, name) in KEYS.iter().enumerate() {
                prop_assert!(world.held[key] == 0 || !world.waits.has(name), "{key} is forgotten");
            }
            prop_assert_eq!(world.arrived.len(), world.served.len() + world.ended + world.waits.len());
            if steps.iter().all(|step| !matches!(step, Step::Arrive(keys) if keys.len() > 1)) {
                for key in 0..KEYS.len() {
                    let here = world.served.iter().filter(|served| served.1 == key);
                    prop_assert!(here.map(|served| served.0).is_sorted());
                }
            }
        }
    }
}
