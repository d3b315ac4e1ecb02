//! The read and the write machine, event by event: the stories on their pages, and any schedule of
//! answers, losses and doubles against a bookkeeper that only counts.

use proptest::prelude::*;

use crate::base::id::NodeId;

use super::contract::{Effective, Override, Quorum};
use super::gather::{Effect, Reason, Revision};
use super::read::Read;
use super::write::{Ran, Write};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const FIRST: Revision = Revision(0);
const SECOND: Revision = Revision(1);

fn ask(n: u8, r: u8, w: u8) -> Effective {
    Quorum::new(n, r, w).unwrap().effective(Override::default(), n.into()).unwrap()
}

/// What one call adds to `out`.
fn effects(call: impl FnOnce(&mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    call(&mut out);
    out
}

fn read(ask: Effective) -> (Read, Vec<Effect>) {
    let mut out = Vec::new();
    (Read::start(&[A, B], ask, &mut out), out)
}

fn write(ask: Effective) -> (Write, Vec<Effect>) {
    let mut out = Vec::new();
    (Write::start(&[A, B], ask, &mut out), out)
}

#[test]
fn a_healthy_quorum_read_is_one_round_trip() {
    let (mut read, out) = read(ask(3, 2, 2));
    assert_eq!(out, [Effect::Check { to: A }]);
    assert_eq!(effects(|out| read.on_same(A, out)), [Effect::Answer]);
    assert_eq!(effects(|out| read.on_same(A, out)), []);
    assert_eq!(effects(|out| read.on_deadline(out)), []);
}

#[test]
fn what_only_we_hold_is_written_back_before_it_is_answered() {
    let (mut read, _) = read(ask(3, 2, 2));
    let out = effects(|out| read.on_entry(A, false, true, out));
    assert_eq!(out, [Effect::WriteBack { to: A, revision: FIRST }]);
    assert_eq!(effects(|out| read.on_stored(A, FIRST, out)), [Effect::Answer]);
}

#[test]
fn what_only_the_peer_held_is_held_by_two_once_it_is_joined() {
    let (mut read, _) = read(ask(3, 2, 2));
    assert_eq!(effects(|out| read.on_entry(A, true, false, out)), [Effect::Answer]);
}

#[test]
fn a_lost_or_recovering_peer_is_replaced_and_its_late_answer_still_counts() {
    let (mut read, _) = read(ask(3, 2, 2));
    assert_eq!(effects(|out| read.on_refused(A, out)), [Effect::Check { to: B }]);
    let mut other = read.clone();
    assert_eq!(effects(|out| other.on_lost(B, out)), [Effect::Fail(Reason::TryAgain)]);
    assert!(other.is_done());
    assert_eq!(effects(|out| read.on_same(A, out)), [Effect::Answer]);
}

#[test]
fn an_old_acknowledgement_is_none_for_the_newer_state() {
    let (mut read, _) = read(ask(3, 2, 2));
    effects(|out| read.on_entry(A, false, true, out));
    assert_eq!(effects(|out| read.on_slow(out)), [Effect::Check { to: B }]);
    let out = effects(|out| read.on_entry(B, true, true, out));
    let again = [A, B].map(|to| Effect::WriteBack { to, revision: SECOND });
    assert_eq!(out, again);
    assert_eq!(effects(|out| read.on_stored(A, FIRST, out)), []);
    assert_eq!(effects(|out| read.on_stored(B, SECOND, out)), [Effect::Answer]);
}

#[test]
fn an_eventual_read_repairs_behind_the_client() {
    let (mut read, out) = read(Effective { r: 2, ..ask(3, 1, 2) });
    assert_eq!(out, [Effect::Check { to: A }]);
    let out = effects(|out| read.on_entry(A, true, true, out));
    assert_eq!(out, [Effect::Answer, Effect::WriteBack { to: A, revision: SECOND }]);
}

#[test]
fn with_one_replica_everything_is_local() {
    let (read, out) = read(ask(1, 1, 1));
    assert_eq!((read.is_done(), out), (true, vec![Effect::Answer]));
    let (mut write, out) = write(ask(1, 1, 1));
    assert_eq!(out, [Effect::Run]);
    assert_eq!(effects(|out| write.on_ran(Ran::Changed, out)), [Effect::Answer]);
}

#[test]
fn a_quorum_write_asks_runs_and_counts() {
    let (mut write, out) = write(ask(3, 2, 2));
    assert_eq!(out, [Effect::Check { to: A }]);
    assert_eq!(effects(|out| write.on_entry(A, true, true, out)), [Effect::Run]);
    assert_eq!(effects(|out| write.on_ran(Ran::Changed, out)), []);
    assert_eq!(effects(|out| write.on_same(A, out)), []);
    assert_eq!(effects(|out| write.on_ack(NodeId(9), out)), []);
    assert_eq!(effects(|out| write.on_ack(B, out)), [Effect::Answer]);
    assert_eq!(effects(|out| write.on_ack(A, out)), []);
}

#[test]
fn one_peer_twice_is_not_two() {
    let (mut write, out) = write(ask(3, 1, 3));
    assert_eq!(out, [Effect::Run], "R = 1 asks nobody");
    effects(|out| write.on_ran(Ran::Changed, out));
    assert_eq!(effects(|out| write.on_ack(A, out)), []);
    assert_eq!(effects(|out| write.on_ack(A, out)), []);
    assert_eq!(effects(|out| write.on_ack(B, out)), [Effect::Answer]);
}

#[test]
fn a_failure_says_what_it_left_behind() {
    let (mut before, _) = write(ask(3, 2, 2));
    let mut after = before.clone();
    assert_eq!(effects(|out| before.on_deadline(out)), [Effect::Fail(Reason::NoQuorum)]);
    assert_eq!(effects(|out| before.on_same(A, out)), []);
    effects(|out| after.on_same(A, out));
    effects(|out| after.on_ran(Ran::Changed, out));
    assert_eq!(effects(|out| after.on_lost(A, out)), []);
    assert_eq!(effects(|out| after.on_lost(B, out)), [Effect::Fail(Reason::Uncertain)]);
    assert!(Reason::NoQuorum.to_string().ends_with("nothing was done"));
    assert!(Reason::Uncertain.to_string().ends_with("it may have been done"));
}

#[test]
fn a_write_that_can_no_more_be_acknowledged_does_not_run() {
    let (mut write, _) = write(ask(3, 2, 3));
    assert_eq!(effects(|out| write.on_lost(A, out)), [Effect::Check { to: B }]);
    assert_eq!(effects(|out| write.on_same(B, out)), [Effect::Fail(Reason::NoQuorum)]);
}

#[test]
fn a_write_that_changed_nothing_is_confirmed_as_a_read_is() {
    let (mut write, _) = write(ask(3, 2, 2));
    effects(|out| write.on_same(A, out));
    let mut other = write.clone();
    let same = Ran::Unchanged { grew: false };
    assert_eq!(effects(|out| other.on_ran(same, out)), [Effect::Answer]);
    let out = effects(|out| write.on_ran(Ran::Unchanged { grew: true }, out));
    assert_eq!(out, [Effect::WriteBack { to: A, revision: SECOND }]);
    assert_eq!(effects(|out| write.on_lost(A, out)), [Effect::Check { to: B }]);
    assert_eq!(effects(|out| write.on_same(B, out)), [Effect::Answer]);
}

/// One thing a peer may do next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Same,
    Entry { grew: bool, behind: bool },
    Lost,
    Refused,
}

fn moves() -> impl Strategy<Value = Vec<(usize, Move, bool)>> {
    let one = prop_oneof![
        3 => Just(Move::Same),
        3 => any::<(bool, bool)>().prop_map(|(grew, behind)| Move::Entry { grew, behind }),
        1 => Just(Move::Lost),
        1 => Just(Move::Refused),
    ];
    prop::collection::vec((0usize..64, one, prop::bool::weighted(0.2)), 64)
}

fn asks() -> impl Strategy<Value = Effective> {
    (1u8..=5, 1u8..=5, 1u8..=5).prop_filter_map("R and W are up to N", |(n, r, w)| {
        let quorum = Quorum::new(n, r, w).ok()?;
        quorum.effective(Override::default(), n.into()).ok()
    })
}

/// Counts what was told, and holds the effects against it.
#[derive(Default)]
struct Bookkeeper {
    in_flight: Vec<Effect>,
    checked: Vec<NodeId>,
    answered: Vec<NodeId>,
    holders: Vec<NodeId>,
    revision: Revision,
    ended: Option<Effect>,
}

impl Bookkeeper {
    fn take(&mut self, effects: Vec<Effect>, ask: Effective) {
        for effect in effects {
            match effect {
                Effect::Check { to } => {
                    assert!(self.ended.is_none() && !self.checked.contains(&to), "asked once");
                    self.checked.push(to);
                    self.in_flight.push(effect);
                }
                Effect::WriteBack { to, revision } => {
                    assert!(self.answered.contains(&to) && revision == self.revision);
                    assert!(!self.holders.contains(&to), "it has it already");
                    assert!(self.answered.len() + 1 >= ask.r.into());
                    self.in_flight.push(effect);
                }
                Effect::Answer => {
                    assert!(self.answered.len() + 1 >= ask.r.into());
                    assert!(self.holders.len() + 1 >= ask.hold.into());
                    assert_eq!(self.ended.replace(effect), None);
                }
                Effect::Fail(reason) => {
                    assert_eq!(reason, Reason::TryAgain);
                    assert_eq!(self.checked.len() + 1, usize::from(ask.n), "everyone was asked");
                    assert_eq!(self.ended.replace(effect), None);
                }
                Effect::Run => panic!("a read runs nothing"),
            }
        }
    }

    fn grow(&mut self) {
        self.revision.0 += 1;
        self.holders.clear();
    }

    fn mark(list: &mut Vec<NodeId>, node: NodeId) {
        if !list.contains(&node) {
            list.push(node);
        }
    }
}

/// Lets `node` do `what` after a check that told of `revision`.
fn answer_check(
    read: &mut Read,
    book: &mut Bookkeeper,
    node: NodeId,
    (told, what): (Revision, Move),
) -> Vec<Effect> {
    let mut out = Vec::new();
    match what {
        Move::Same => {
            Bookkeeper::mark(&mut book.answered, node);
            if told == book.revision {
                Bookkeeper::mark(&mut book.holders, node);
            }
            read.on_same(node, &mut out);
        }
        Move::Entry { grew, behind } => {
            Bookkeeper::mark(&mut book.answered, node);
            if grew {
                book.grow();
            }
            if !behind {
                Bookkeeper::mark(&mut book.holders, node);
            }
            read.on_entry(node, grew, behind, &mut out);
        }
        Move::Lost => read.on_lost(node, &mut out),
        Move::Refused => read.on_refused(node, &mut out),
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the peers do, the read ends once, ends rightly, and never waits for nothing: while
    /// it is not done, something that it sent is still unanswered.
    #[test]
    fn any_schedule_ends_once_and_rightly(ask in asks(), moves in moves()) {
        let others: Vec<NodeId> = (1..u16::from(ask.n)).map(NodeId).collect();
        let (mut book, mut out) = (Bookkeeper::default(), Vec::new());
        let mut read = Read::start(&others, ask, &mut out);
        let mut told = [FIRST; 8];
        for (which, what, again) in moves {
            book.take(std::mem::take(&mut out), ask);
            prop_assert_eq!(read.is_done(), book.ended.is_some());
            if read.is_done() {
                break;
            }
            prop_assert!(!book.in_flight.is_empty(), "it waits for nothing");
            let at = which % book.in_flight.len();
            let frame = book.in_flight[at];
            match frame {
                Effect::Check { to } => {
                    let revision = told[usize::from(to.0)];
                    out = answer_check(&mut read, &mut book, to, (revision, what));
                }
                Effect::WriteBack { to, revision } => match what {
                    Move::Lost | Move::Refused => read.on_lost(to, &mut out),
                    Move::Same | Move::Entry { .. } => {
                        if revision == book.revision {
                            Bookkeeper::mark(&mut book.holders, to);
                        }
                        read.on_stored(to, revision, &mut out);
                    }
                },
                _ => unreachable!("only frames are in flight"),
            }
            // A double or late copy may follow, unless its content could be another by then.
            let copies = matches!(frame, Effect::WriteBack { .. }) || matches!(what, Move::Lost);
            if !(again && copies) {
                book.in_flight.swap_remove(at);
            }
            for effect in &out {
                if let Effect::Check { to } = effect {
                    told[usize::from(to.0)] = book.revision;
                }
            }
        }
        // Once it is done, nothing moves it.
        if read.is_done() {
            out.clear();
            for node in others {
                read.on_same(node, &mut out);
                read.on_entry(node, true, true, &mut out);
                read.on_stored(node, book.revision, &mut out);
                read.on_lost(node, &mut out);
            }
            read.on_slow(&mut out);
            read.on_deadline(&mut out);
            prop_assert!(out.is_empty());
        }
    }
}
