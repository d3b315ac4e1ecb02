//! A stream and its receiver by hand: links are cut anywhere, acknowledgements are lost, the
//! receiver forgets or loses its disk, and in the end it holds everything, or was told that it
//! does not.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::base::id::VnodeId;
use crate::peer::frame::Batch;

use super::*;

const RUN: u64 = 7;

fn rep(number: u64) -> BytesMut {
    let mut frame = BytesMut::new();
    Message::Rep { vnode: VnodeId(1), record: &number.to_le_bytes() }.encode(&mut frame);
    frame
}

fn status(number: u64) -> BytesMut {
    let mut frame = BytesMut::new();
    Message::Status { body: &number.to_le_bytes() }.encode(&mut frame);
    frame
}

/// The same change with so many bytes more.
fn long_rep(number: u64, more: usize) -> BytesMut {
    let record = [&number.to_le_bytes()[..], &vec![0; more]].concat();
    let mut frame = BytesMut::new();
    Message::Rep { vnode: VnodeId(1), record: &record }.encode(&mut frame);
    frame
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

/// What the receiver's disk, its process and the wire between hold.
struct World {
    stream: Stream,
    linked: bool,
    /// Bytes on their way to the receiver, and numbers on their way back.
    wire: Vec<u8>,
    acks: Vec<u64>,
    settles: Vec<u64>,
    /// The receiver's log, and what its process knows.
    log: BTreeSet<u64>,
    incoming: Incoming,
    reps: u64,
    lossy: bool,
    /// Statuses said so far, and heard: each at most once, and only on its own link.
    said: u64,
    said_before_link: u64,
    heard: BTreeSet<u64>,
    gaps: usize,
    now: Moment,
}

impl World {
    fn new(bounds: Bounds) -> World {
        World {
            stream: Stream::new(bounds),
            linked: false,
            wire: Vec::new(),
            acks: Vec::new(),
            settles: Vec::new(),
            log: BTreeSet::new(),
            incoming: Incoming::default(),
            reps: 0,
            lossy: false,
            said: 0,
            said_before_link: 0,
            heard: BTreeSet::new(),
            gaps: 0,
            now: Moment(1),
        }
    }

    fn append(&mut self, changes: u64) {
        let mut run = BytesMut::new();
        let first = self.stream.appended() + 1;
        for change in first..first + changes {
            run.extend_from_slice(&rep(change));
            self.said += 1;
            run.extend_from_slice(&status(self.said));
        }
        self.append_run(&run, changes);
    }

    /// One change that may need a chunk of its own.
    fn append_long(&mut self, more: usize) {
        let run = long_rep(self.stream.appended() + 1, more);
        self.append_run(&run, 1);
    }

    fn append_run(&mut self, run: &[u8], changes: u64) {
        let before = self.stream.appended();
        let upto = if self.stream.is_flowing() {
            self.stream.place(run.len()).extend_from_slice(run);
            self.stream.appended_in_place(changes)
        } else {
            self.stream.sort_in(run, self.linked)
        };
        assert_eq!(upto, before + changes);
    }

    fn link_up(&mut self) -> Begun {
        assert!(!std::mem::replace(&mut self.linked, true));
        let (run, held) = self.incoming.greeting();
        let held = (run == RUN).then_some(held);
        let begun = self.stream.resume(held, self.lossy);
        self.gaps += usize::from(begun.gap);
        self.lossy = false;
        self.incoming.link_up(RUN);
        self.reps = 0;
        self.said_before_link = self.said;
        begun
    }

    fn cut(&mut self) {
        if std::mem::replace(&mut self.linked, false) {
            self.wire.clear();
            self.acks.clear();
            self.settles.clear();
            self.stream.unlink();
            self.incoming.link_down();
        }
    }

    /// The writer sends once.
    fn send(&mut self, allowance: usize) {
        if self.linked {
            let mut taken = Taken::new();
            self.stream.take(allowance, &mut taken);
            taken.iter().for_each(|bytes| self.wire.extend_from_slice(bytes));
        }
    }

    /// The receiver reads what has arrived.
    fn receive(&mut self) {
        let wire = std::mem::take(&mut self.wire);
        let mut batch = Batch::of_frames(&wire, self.reps);
        let mut answer = false;
        while let Some(message) = batch.next() {
            match message {
                Message::Rep { record, .. } => {
                    assert_eq!(number(record), batch.reps(), "both ends count alike");
                    self.log.insert(number(record));
                    answer = true;
                }
                Message::Status { body } => {
                    assert!(number(body) > self.said_before_link, "said on an earlier link");
                    assert!(self.heard.insert(number(body)), "heard twice");
                }
                Message::Resume { after, gap } => self.incoming.on_resume(after, gap),
                Message::CaughtUp { upto } => {
                    assert_eq!(upto, batch.reps());
                    self.incoming.on_caught_up();
                    answer = true;
                }
                other => panic!("nobody says {other:?}"),
            }
        }
        self.reps = batch.reps();
        if answer {
            self.incoming.on_held(self.reps);
            self.acks.push(self.reps);
        }
    }

    /// What the receiver has said arrives.
    fn answer(&mut self) {
        for upto in std::mem::take(&mut self.acks) {
            self.stream.acknowledge(upto);
        }
        for after in std::mem::take(&mut self.settles) {
            self.stream.settled(after);
        }
    }

    /// If the receiver was told of a gap, it compares itself with the sender now.
    fn exchange(&mut self) {
        if self.linked
            && self.incoming.is_through()
            && let Some(after) = self.incoming.settle()
        {
            self.log.extend(1..=self.stream.appended());
            self.settles.push(after);
        }
    }

    fn run_dry(&mut self) {
        for _ in 0..10_000 {
            self.send(usize::MAX);
            self.receive();
            self.answer();
            self.exchange();
            self.answer();
            if self.stream.is_through() && self.stream.lag(self.now).changes == 0 {
                return;
            }
        }
        panic!("it never comes to an end: {:?}", self.stream.lag(self.now));
    }

    fn assert_complete(&self) {
        let missing: Vec<u64> =
            (1..=self.stream.appended()).filter(|change| !self.log.contains(change)).collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        assert!(!self.stream.has_gap());
        let lag = self.stream.lag(self.now);
        assert_eq!((lag.changes, lag.bytes), (0, 0));
    }

    /// The first link of a process always begins with a gap.
    fn meet(&mut self) {
        assert!(self.link_up().gap);
        self.run_dry();
        self.assert_complete();
        self.gaps = 0;
    }
}

fn world() -> World {
    World::new(Bounds::default())
}

#[test]
fn a_link_that_breaks_is_resumed_where_it_was_acknowledged() {
    let mut world = world();
    world.meet();
    world.append(10);
    world.send(usize::MAX);
    world.receive();
    world.answer();
    world.append(5);
    world.send(usize::MAX);
    // Sent, and lost on the way.
    world.cut();
    world.append(3);
    let begun = world.link_up();
    assert_eq!((begun.after, begun.gap, begun.changes), (10, false, 8));
    assert!(!world.stream.is_through());
    // What is new waits behind the backlog; what is no change does not.
    world.append(2);
    world.run_dry();
    world.assert_complete();
    assert_eq!(world.gaps, 0);
}

#[test]
fn a_change_alone_in_its_chunk_is_sent_again_like_any_other() {
    let mut world = world();
    world.meet();
    world.cut();
    world.append(3);
    // No room behind those: the change begins a chunk, and the link comes before another does.
    world.append_long(CHUNK_SIZE);
    assert_eq!(world.link_up().changes, 4);
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_change_that_begins_a_chunk_is_not_sent_again_to_one_that_holds_it() {
    let mut world = world();
    world.meet();
    world.cut();
    world.append(3);
    world.append_long(CHUNK_SIZE);
    world.append(1);
    world.link_up();
    // So little is allowed that one change goes at a time.
    (0..4).for_each(|_| world.send(1));
    world.receive();
    world.cut();
    let begun = world.link_up();
    assert_eq!((begun.after, begun.changes), (4, 1));
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_lost_acknowledgement_costs_nothing_while_the_receiver_remembers() {
    let mut world = world();
    world.meet();
    world.append(10);
    world.send(usize::MAX);
    world.receive();
    world.cut();
    assert_eq!(world.link_up().changes, 0);
    assert!(world.stream.is_through());
    world.cut();
    // A receiver that was killed has it in its log, but does not know; what it acknowledged counts.
    world.incoming = Incoming::default();
    assert_eq!(world.link_up().after, 10);
    world.run_dry();
    world.assert_complete();
    assert_eq!(world.gaps, 0);
}

#[test]
fn a_receiver_that_forgot_is_sent_what_it_had_not_acknowledged() {
    let mut world = world();
    world.meet();
    world.append(4);
    world.run_dry();
    world.append(6);
    world.send(usize::MAX);
    world.receive();
    world.cut();
    world.incoming = Incoming::default();
    let begun = world.link_up();
    assert_eq!((begun.after, begun.changes, begun.gap), (4, 6, false));
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_backlog_over_its_bytes_is_dropped_and_told() {
    let mut world = World::new(Bounds { bytes_max: 1000, ..Bounds::default() });
    world.meet();
    world.cut();
    for _ in 0..100 {
        world.append(1);
    }
    assert!(world.stream.has_gap());
    assert_eq!(world.stream.backlogs_dropped(), 1, "and nothing is kept after it");
    let lag = world.stream.lag(world.now);
    assert_eq!((lag.bytes, lag.changes), (0, 100));
    assert!(world.link_up().gap);
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_backlog_that_is_too_old_is_dropped_and_told() {
    let mut world = World::new(Bounds { age_ms_max: 1000, ..Bounds::default() });
    world.meet();
    world.cut();
    world.append(1);
    for ms in [10, 900, 1005] {
        world.stream.tick(Moment(ms));
        assert!(!world.stream.has_gap(), "at {ms}");
    }
    assert_eq!(world.stream.lag(Moment(1005)).ms, 995);
    world.stream.tick(Moment(1011));
    assert!(world.stream.has_gap());
    assert!(world.link_up().gap);
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_backlog_that_overflows_while_it_is_sent_again_is_told_on_the_same_link() {
    let mut world = World::new(Bounds { bytes_max: 1200, ..Bounds::default() });
    world.meet();
    world.cut();
    world.append(50);
    assert!(!world.link_up().gap);
    world.send(100);
    for _ in 0..50 {
        world.append(1);
    }
    assert!(world.stream.has_gap());
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_gap_outlives_links_and_restarts_until_it_is_closed() {
    let mut world = world();
    world.meet();
    world.stream.break_off();
    world.cut();
    for _ in 0..3 {
        world.append(1);
        assert!(world.link_up().gap);
        // Everything is sent, but the exchange comes to nothing.
        world.send(usize::MAX);
        world.receive();
        world.answer();
        world.cut();
        world.incoming = Incoming::default();
    }
    assert!(world.link_up().gap);
    world.send(usize::MAX);
    world.receive();
    // An answer to an earlier beginning closes nothing.
    assert!(!world.stream.settled(0));
    world.run_dry();
    world.assert_complete();
    world.cut();
    assert!(!world.link_up().gap);
}

#[test]
fn a_receiver_that_lost_its_disk_is_told_of_a_gap() {
    let mut world = world();
    world.meet();
    world.append(9);
    world.run_dry();
    world.cut();
    (world.lossy, world.incoming) = (true, Incoming::default());
    world.log.clear();
    assert!(world.link_up().gap);
    world.run_dry();
    world.assert_complete();
}

#[test]
fn a_receiver_that_claims_the_future_knows_another_stream() {
    let mut world = world();
    world.meet();
    world.append(3);
    world.run_dry();
    world.cut();
    assert!(world.stream.resume(Some(4), false).gap);
}

#[test]
fn what_is_sent_again_goes_no_further_than_the_window() {
    let mut world = world();
    world.meet();
    world.cut();
    let record = vec![0; 10_000];
    let mut frames = BytesMut::new();
    Message::Rep { vnode: VnodeId(1), record: &record }.encode(&mut frames);
    for _ in 0..200 {
        world.stream.sort_in(&frames, false);
    }
    world.link_up();
    let mut taken = Taken::new();
    let mut sent = 0;
    for _ in 0..100 {
        world.stream.take(usize::MAX, &mut taken);
        sent += taken.iter().map(Bytes::len).sum::<usize>();
    }
    assert!(sent <= RESUME_WINDOW_BYTES + frames.len() + 100, "{sent}");
    assert!(sent > RESUME_WINDOW_BYTES - CHUNK_SIZE);
    // Acknowledging a part lets as much more go, even within one piece.
    world.stream.acknowledge(10);
    world.stream.take(usize::MAX, &mut taken);
    assert!(!taken.is_empty());
    let through = (0..1000).any(|_| {
        world.stream.acknowledge(world.stream.acked() + 5);
        world.stream.take(usize::MAX, &mut taken);
        world.stream.is_flowing()
    });
    assert!(through);
}

#[test]
fn a_flowing_stream_copies_nothing_and_allocates_a_chunk_at_a_time() {
    let mut stream = Stream::flowing(Bounds::default());
    let frame = rep(1);
    let mut taken = Taken::new();
    let mut chunks = BTreeSet::new();
    let mut bytes = 0;
    for change in 1..=20_000u64 {
        let place = stream.place(frame.len());
        place.extend_from_slice(&frame);
        let at = place.as_ptr() as usize + place.len() - frame.len();
        stream.appended_in_place(1);
        if change % 7 == 0 {
            stream.take(usize::MAX, &mut taken);
            let end = taken.last().expect("seven changes");
            assert_eq!(end.as_ptr() as usize + end.len() - frame.len(), at, "sent from its place");
        }
        if change % 21 == 0 {
            stream.acknowledge(change - 14);
        }
        chunks.insert(at / CHUNK_SIZE);
        bytes += frame.len();
    }
    // The allocator may give the same places again, so this is no more than a bound.
    assert!(chunks.len() <= 2 * (bytes / CHUNK_SIZE + 1));
    assert!(stream.lag(Moment(0)).bytes < CHUNK_SIZE);
}

#[test]
fn a_peer_that_is_slow_to_acknowledge_costs_no_more_than_the_bound() {
    let mut stream = Stream::flowing(Bounds { bytes_max: 10_000, age_ms_max: 1 });
    let mut taken = Taken::new();
    for _ in 0..5_000 {
        stream.place(64).extend_from_slice(&rep(0));
        stream.appended_in_place(1);
        stream.take(usize::MAX, &mut taken);
        assert!(stream.lag(Moment(0)).bytes <= 10_000);
        assert!(stream.queued_bytes() < 100, "all but the last is sent");
    }
    // As long as the link holds nothing is lost, and then the peer is told.
    assert!(!stream.has_gap());
    stream.unlink();
    assert!(stream.resume(Some(100), false).gap);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u64),
    AppendLong(usize),
    Send(usize),
    Receive,
    Answer,
    Exchange,
    Cut,
    LinkUp,
    Forget,
    LoseDisk,
    BreakOff,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u64..40).prop_map(Step::Append),
        2 => (CHUNK_SIZE / 2..CHUNK_SIZE).prop_map(Step::AppendLong),
        6 => prop_oneof![Just(usize::MAX), 0usize..300].prop_map(Step::Send),
        6 => Just(Step::Receive),
        5 => Just(Step::Answer),
        3 => Just(Step::Exchange),
        4 => Just(Step::Cut),
        6 => Just(Step::LinkUp),
        1 => Just(Step::Forget),
        1 => Just(Step::LoseDisk),
        1 => Just(Step::BreakOff),
        2 => (1u64..200).prop_map(Step::Wait),
    ]
}

impl World {
    fn take_step(&mut self, step: Step) {
        match step {
            Step::Append(changes) => self.append(changes),
            Step::AppendLong(more) => self.append_long(more),
            Step::Send(allowance) => self.send(allowance),
            Step::Receive => self.receive(),
            Step::Answer => self.answer(),
            Step::Exchange => self.exchange(),
            Step::Cut => self.cut(),
            Step::LinkUp if !self.linked => _ = self.link_up(),
            Step::LinkUp => {}
            Step::Forget => {
                self.cut();
                self.incoming = Incoming::default();
            }
            Step::LoseDisk => {
                self.cut();
                self.log.clear();
                (self.incoming, self.lossy) = (Incoming::default(), true);
            }
            // A change that the sender has made, and its stream has not seen: only the exchange
            // brings it, so in this world it is a gap and nothing more.
            Step::BreakOff => {
                self.stream.break_off();
                self.cut();
            }
            Step::Wait(ms) => {
                self.now = Moment(self.now.0 + ms);
                self.stream.tick(self.now);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_lost_unnoticed(
        steps in proptest::collection::vec(step(), 0..150),
        bytes_max in prop_oneof![Just(64usize << 20), 500usize..5_000],
        age_ms_max in prop_oneof![Just(1_000_000u64), 100u64..1_000],
    ) {
        let mut world = World::new(Bounds { bytes_max, age_ms_max });
        for step in steps {
            world.take_step(step);
        }
        world.cut();
        world.link_up();
        world.run_dry();
        world.assert_complete();
    }

    #[test]
    fn cuts_and_restarts_alone_never_make_a_gap(
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let mut world = world();
        world.meet();
        for step in steps {
            if !matches!(step, Step::LoseDisk | Step::BreakOff) {
                world.take_step(step);
            }
        }
        world.cut();
        world.link_up();
        world.run_dry();
        world.assert_complete();
        prop_assert_eq!(world.gaps, 0);
    }
}
