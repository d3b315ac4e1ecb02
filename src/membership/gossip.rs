//! Who is alive: heartbeats from member to member, and suspicion that others must share (pure).
//!
//! Every round a member tells some others how far its own life has come, whom it suspects, and what
//! it knows of the rest. In a small cluster it tells everybody; in a large one a few in turn, and
//! one that is suspected, so that a round costs the same whatever the cluster's size. Whoever is
//! silent for longer than its rhythm explains ([`super::phi`]) is suspected, and given up when
//! somebody else says the same. (Dynamo §4.8.2; van Renesse, Minsky and Hayden, "A gossip-style
//! failure detection service", 1998; of SWIM the wish for a second opinion, Das, Gupta and
//! Motivala 2002.)
//!
//! ```text
//!            silent                 a second one says so too, or nobody else is left
//!   Alive ──────────► Suspect ─────────────────────────────────────► Confirmed
//!     ▲ ▲      heard     │                                               │
//!     │ └────────────────┘             some heartbeats, or a new life    │
//!     └──────────────────────────────────────────────────────────────────┘
//!   any ── goodbye ──► Left ── heard anew ──► Alive
//!   any ── nobody listens at its address, and it is silent too ──► Confirmed
//! ```
//!
//! Invariants: only heartbeats of a member's own connection make it alive here, hearsay merely
//! tells that it lives elsewhere; what this node slept through is held against nobody; a message's
//! size is bounded, and so is the number of messages a round.

use crate::base::id::NodeId;
use crate::base::time::{Moment, UnixMs};

use super::clock::{self, Clock};
use super::heartbeat::{Message, Own, Pulse, RUMOURS_MAX, Rumour, SUSPECTS_MAX, Suspect};
use super::phi::{self, Detector};

/// How gossip goes about. All nodes of a cluster should be given the same.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// Milliseconds from one round to the next. A fifth of a second finds a silent member in
    /// little more than one, at some 1.3 KB to each member a round at most.
    pub round_ms: u64,
    /// At most how long after the last event the machine expects the next call, in milliseconds.
    pub tick_ms: u64,
    /// Up to so many others, all of them hear every round.
    pub all_max: usize,
    /// Beyond that, so many do, in turn.
    pub fanout: usize,
    /// When a member's silence is suspicious.
    pub detector: phi::Options,
    /// An own call that is later than this, in milliseconds, is a pause of this node: nobody could
    /// be heard meanwhile.
    pub pause_ms: u64,
    /// After a pause of so many milliseconds others have surely given this node up; after a shorter
    /// one only if they say so.
    pub away_ms: u64,
    /// Heartbeats that bring back a member that was given up, so that a dying one does not flap.
    pub beats_to_return: u8,
    /// Members that must suspect one, this node included, as far as there are so many.
    pub witnesses: usize,
    /// How clocks are judged.
    pub clock: clock::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            round_ms: 200,
            tick_ms: 50,
            all_max: 5,
            fanout: 3,
            detector: phi::Options::default(),
            pause_ms: 200,
            away_ms: 3_000,
            beats_to_return: 3,
            witnesses: 2,
            clock: clock::Options::default(),
        }
    }
}

/// After a pause, what arrives has waited. For so long, in milliseconds, clocks are not compared,
/// and whoever suspects this node does so for the pause.
const AFTER_PAUSE_MS: u64 = 1_000;

/// What is believed of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// It is heard.
    Alive,
    /// It is not heard here, and nobody else says so.
    Suspect,
    /// It is not heard, and others say so too.
    Confirmed,
    /// It said goodbye.
    Left,
}

/// What the shell must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send a heartbeat. If it cannot go out at once it is dropped, never queued.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// A member's state is another now.
    Changed {
        /// Whose.
        node: NodeId,
        /// Which.
        state: MemberState,
    },
    /// Whether a clock is off is judged otherwise now: a member's by its own word, or this node's.
    Clock {
        /// Whose.
        node: NodeId,
        /// Whether it is off.
        off: bool,
    },
    /// This node slept, and for so long that others have given it up.
    Away {
        /// How long.
        ms: u64,
    },
}

/// One member as it is seen from here.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// What is believed of it.
    pub state: MemberState,
    /// How sure it is that it is silent.
    pub phi: f64,
    /// Milliseconds since it was heard (or, if it never was, since it is waited for).
    pub silence_ms: u64,
    /// Milliseconds since others are known to have heard of it what this node has not; `None`:
    /// nobody knows more than this node.
    pub elsewhere_ms: Option<u64>,
    /// How far its life is known; zeros if it was never heard.
    pub pulse: Pulse,
    /// What it says of itself.
    pub own: Option<Own>,
    /// Whether its clock is off, by its own word.
    pub clock_off: bool,
    /// How far its clock is ahead of this node's.
    pub clock_ms: Option<i64>,
    /// Members heard here that suspect it.
    pub suspected_by: Vec<NodeId>,
}

#[derive(Clone, Debug)]
struct Member {
    node: NodeId,
    state: MemberState,
    /// As it said itself.
    pulse: Pulse,
    /// As anybody said.
    newest: Pulse,
    /// With which heartbeat it said goodbye.
    farewell: Option<Pulse>,
    /// When hearsay last ran ahead of what it said itself.
    hearsay: Option<Moment>,
    direct: Detector,
    /// Anybody's word counts here: notices the death of one that is seldom heard directly.
    anywhere: Detector,
    silent: bool,
    /// Heartbeats since it was silent.
    beats: u8,
    /// Nobody listened at its address, and it was neither heard nor reached since.
    refused: bool,
    own: Option<Own>,
    clock_off: bool,
    suspects: Vec<Suspect>,
}

impl Member {
    fn new(node: NodeId, options: &Options, expected_ms: u64, now: Moment) -> Member {
        Member {
            node,
            state: MemberState::Alive,
            pulse: Pulse::default(),
            newest: Pulse::default(),
            farewell: None,
            hearsay: None,
            direct: Detector::new(options.detector, expected_ms, now),
            anywhere: Detector::new(options.detector, options.round_ms, now),
            silent: false,
            beats: 0,
            refused: false,
            own: None,
            clock_off: false,
            suspects: Vec::new(),
        }
    }

    fn suspects(&self, node: NodeId, generation: u64) -> bool {
        let meant = |suspect: &Suspect| suspect.node == node && suspect.generation >= generation;
        self.suspects.iter().any(meant)
    }
}

/// A pause of this node.
#[derive(Clone, Copy, Debug)]
struct Pause {
    ms: u64,
    /// Until when what arrives may have waited for its end.
    settles: Moment,
    /// Whether it was told that others have given this node up.
    told: bool,
}

/// A stream of chance from one seed (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) % limit.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// One node's part in the gossip. See the head of this file.
#[derive(Clone, Debug)]
pub struct Gossip {
    options: Options,
    me: NodeId,
    pulse: Pulse,
    own: Own,
    /// The others, by their ids.
    members: Vec<Member>,
    /// Places in `members`, in the order in which they have their turn.
    turns: Vec<usize>,
    turn: usize,
    /// Whose rumour is next.
    rumour: usize,
    next_round: Moment,
    /// The last call.
    awake: Moment,
    clock: Clock,
    /// The pause after which things are still settling.
    pause: Option<Pause>,
    chance: Chance,
}

impl Gossip {
    /// The part of `me`, in its life `generation` (later lives have greater ones), among `members`
    /// (which may contain `me`). `seed` should differ from node to node.
    pub fn new(
        options: Options,
        me: NodeId,
        generation: u64,
        members: &[NodeId],
        now: Moment,
        seed: u64,
    ) -> Gossip {
        let mut chance = Chance(seed);
        let phase = chance.below(options.round_ms as usize) as u64;
        let mut gossip = Gossip {
            options,
            me,
            pulse: Pulse { generation, counter: 0 },
            own: Own::default(),
            members: Vec::new(),
            turns: Vec::new(),
            turn: 0,
            rumour: 0,
            next_round: Moment(now.0 + phase),
            awake: now,
            clock: Clock::new(options.clock),
            pause: None,
            chance,
        };
        gossip.set_members(members, now);
        gossip
    }

    /// Others come or go. What is known of those that stay, stays.
    pub fn set_members(&mut self, members: &[NodeId], now: Moment) {
        let mut nodes: Vec<NodeId> = members.iter().copied().filter(|&n| n != self.me).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let turns_ms = match nodes.len() {
            others if others <= self.options.all_max => 1,
            others => others.div_ceil(self.options.fanout.max(1)) as u64,
        };
        let expected_ms = self.options.round_ms * turns_ms;
        let mut before = std::mem::take(&mut self.members);
        self.members = nodes
            .iter()
            .map(|&node| match before.iter().position(|member| member.node == node) {
                Some(at) => before.swap_remove(at),
                None => Member::new(node, &self.options, expected_ms, now),
            })
            .collect();
        for gone in before {
            self.clock.forget(gone.node);
        }
        self.turns = (0..self.members.len()).collect();
        self.chance.shuffle(&mut self.turns);
        (self.turn, self.rumour) = (0, 0);
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search_by_key(&node, |member| member.node).ok()
    }

    /// Time passes; to be called every [`Options::tick_ms`]. `wall`: the wall clock now; `own`:
    /// what this node is like.
    pub fn on_tick(&mut self, now: Moment, wall: UnixMs, own: &Own, out: &mut Vec<Effect>) {
        self.wake(now, out);
        self.own = *own;
        if let Some(off) = self.clock.on_tick(now) {
            out.push(Effect::Clock { node: self.me, off });
        }
        self.judge(now, out);
        if now >= self.next_round {
            self.round(wall, out);
            // A round that is late does not make the next ones crowd.
            let due = Moment(self.next_round.0 + self.options.round_ms);
            let late = due <= now;
            self.next_round = if late { Moment(now.0 + self.options.round_ms) } else { due };
        }
    }

    /// `from` says this on its own connection.
    pub fn on_message(
        &mut self,
        from: NodeId,
        message: &Message,
        now: Moment,
        wall: UnixMs,
        out: &mut Vec<Effect>,
    ) {
        self.wake(now, out);
        let Some(at) = self.place(from) else { return };
        if message.pulse > self.members[at].pulse {
            self.heard(at, message, now, wall, out);
        }
        let given_up = |suspect: &Suspect| {
            suspect.node == self.me && suspect.generation >= self.pulse.generation
        };
        if let Some(pause) = self.pause.filter(|pause| !pause.told)
            && message.suspects.iter().any(given_up)
        {
            self.pause = Some(Pause { told: true, ..pause });
            out.push(Effect::Away { ms: pause.ms });
        }
        for rumour in &message.rumours {
            self.hearsay(rumour, now, out);
        }
        self.judge(now, out);
    }

    /// Nobody listens at the address of `node`: its process is gone, if it is not heard either.
    pub fn on_refused(&mut self, node: NodeId, now: Moment, out: &mut Vec<Effect>) {
        self.wake(now, out);
        if let Some(at) = self.place(node) {
            self.members[at].refused = true;
            self.judge(now, out);
        }
    }

    /// Somebody listens at the address of `node` again.
    pub fn on_reached(&mut self, node: NodeId) {
        if let Some(at) = self.place(node) {
            self.members[at].refused = false;
        }
    }

    /// This node stops: everybody is told.
    pub fn leave(&mut self, wall: UnixMs, out: &mut Vec<Effect>) {
        self.pulse.counter += 1;
        let message = Message { leaving: true, ..self.message(wall) };
        let to = |member: &Member| Effect::Send { to: member.node, message: message.clone() };
        out.extend(self.members.iter().map(to));
    }

    /// Takes note of the time. A late call means that this node slept: what it did not hear
    /// meanwhile was perhaps said.
    fn wake(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let late_ms = now.since(self.awake).saturating_sub(self.options.tick_ms);
        self.awake = self.awake.max(now);
        self.pause = self.pause.filter(|pause| now < pause.settles);
        if late_ms <= self.options.pause_ms {
            return;
        }
        for member in &mut self.members {
            member.direct.excuse(late_ms, now);
            member.anywhere.excuse(late_ms, now);
        }
        let told = late_ms >= self.options.away_ms;
        self.pause = Some(Pause { ms: late_ms, settles: Moment(now.0 + AFTER_PAUSE_MS), told });
        if told {
            out.push(Effect::Away { ms: late_ms });
        }
    }

    /// A member spoke for itself, and it is news.
    fn heard(
        &mut self,
        at: usize,
        message: &Message,
        now: Moment,
        wall: UnixMs,
        out: &mut Vec<Effect>,
    ) {
        let options = self.options;
        let member = &mut self.members[at];
        let node = member.node;
        if message.pulse.generation > member.pulse.generation {
            // Another process: its rhythm and its clock are its own, and it is here.
            self.clock.forget(node);
            member.direct = Detector::new(options.detector, member.direct.expected_ms(), now);
            member.beats = options.beats_to_return;
        } else {
            member.direct.heard(now);
            member.beats = member.beats.saturating_add(1);
        }
        member.pulse = message.pulse;
        member.hearsay = None;
        if message.pulse > member.newest {
            member.newest = message.pulse;
            member.anywhere.heard(now);
        }
        member.refused = false;
        member.own = Some(message.own);
        member.suspects.clone_from(&message.suspects);
        if member.clock_off != message.clock_off {
            member.clock_off = message.clock_off;
            out.push(Effect::Clock { node, off: message.clock_off });
        }
        if self.pause.is_none() {
            self.clock.on_heartbeat(node, message.wall, wall, now);
        }
        if message.leaving {
            self.members[at].farewell = Some(message.pulse);
            self.turn_to(at, MemberState::Left, out);
        } else if self.members[at].state == MemberState::Left {
            self.turn_to(at, MemberState::Alive, out);
        }
    }

    fn hearsay(&mut self, rumour: &Rumour, now: Moment, out: &mut Vec<Effect>) {
        if rumour.node == self.me {
            // An earlier process of this node is remembered that came further: a clock that went
            // back, or a wiped folder. What this one says must count as later.
            if rumour.pulse > self.pulse
                && let Some(generation) = rumour.pulse.generation.checked_add(1)
            {
                self.pulse.generation = generation;
            }
            return;
        }
        let Some(at) = self.place(rumour.node) else { return };
        let member = &mut self.members[at];
        if rumour.pulse > member.newest {
            member.newest = rumour.pulse;
            member.anywhere.heard(now);
            member.hearsay = Some(now);
        }
        if rumour.left && rumour.pulse == member.newest && rumour.pulse > member.pulse {
            member.farewell = Some(rumour.pulse);
            self.turn_to(at, MemberState::Left, out);
        }
    }

    fn turn_to(&mut self, at: usize, state: MemberState, out: &mut Vec<Effect>) {
        let member = &mut self.members[at];
        if member.state != state {
            member.state = state;
            out.push(Effect::Changed { node: member.node, state });
        }
    }

    /// Judges every member anew.
    fn judge(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let by_hearsay = self.members.len() > self.options.all_max;
        for member in &mut self.members {
            // A refusal alone may come from a wrong address: somebody who is heard is there.
            let refused =
                member.refused && member.direct.silence_ms(now) >= 2 * member.direct.expected_ms();
            member.silent = refused
                || member.direct.is_silent(now)
                || by_hearsay && member.anywhere.is_silent(now);
            if member.silent {
                member.beats = 0;
            }
        }
        for at in 0..self.members.len() {
            let state = self.verdict(at);
            if state == MemberState::Suspect && self.members[at].state == MemberState::Alive {
                // Who else suspects it waits for this word.
                self.next_round = self.next_round.min(now);
            }
            self.turn_to(at, state, out);
        }
    }

    fn verdict(&self, at: usize) -> MemberState {
        let member = &self.members[at];
        match (member.state, member.silent) {
            (MemberState::Left, _) => MemberState::Left,
            (MemberState::Confirmed, true) => MemberState::Confirmed,
            (MemberState::Confirmed, false) if member.beats < self.options.beats_to_return => {
                MemberState::Confirmed
            }
            (_, false) => MemberState::Alive,
            (_, true) if member.refused => MemberState::Confirmed,
            (_, true) => {
                let others_alive = self.heard_members().count();
                let witnesses = 1 + self.witnesses_against(member).count();
                let needed = self.options.witnesses.min(1 + others_alive);
                if witnesses >= needed { MemberState::Confirmed } else { MemberState::Suspect }
            }
        }
    }

    fn heard_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.silent && member.state == MemberState::Alive)
    }

    fn witnesses_against<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = NodeId> + 'a {
        let says_so = |other: &&Member| other.suspects(member.node, member.pulse.generation);
        self.heard_members().filter(says_so).map(|other| other.node)
    }

    fn round(&mut self, wall: UnixMs, out: &mut Vec<Effect>) {
        self.pulse.counter += 1;
        let message = self.message(wall);
        self.rumour = (self.rumour + message.rumours.len()) % self.members.len().max(1);
        for at in self.partners() {
            out.push(Effect::Send { to: self.members[at].node, message: message.clone() });
        }
    }

    /// The places of those who are told this round.
    fn partners(&mut self) -> Vec<usize> {
        let count = self.members.len();
        if count <= self.options.all_max {
            return (0..count).collect();
        }
        let mut partners: Vec<usize> =
            (0..self.options.fanout).map(|step| self.turns[(self.turn + step) % count]).collect();
        self.turn = (self.turn + self.options.fanout) % count;
        let silent: Vec<usize> =
            (0..count).filter(|at| self.members[*at].silent && !partners.contains(at)).collect();
        if !silent.is_empty() {
            partners.push(silent[self.chance.below(silent.len())]);
        }
        partners
    }

    fn message(&self, wall: UnixMs) -> Message {
        let silent = |member: &&Member| member.silent && member.state != MemberState::Left;
        let suspects = self.members.iter().filter(silent).take(SUSPECTS_MAX);
        let suspect =
            |member: &Member| Suspect { node: member.node, generation: member.newest.generation };
        let count = self.members.len();
        let known = (0..count.min(RUMOURS_MAX))
            .map(|step| &self.members[(self.rumour + step) % count])
            .filter(|member| member.newest != Pulse::default());
        let rumour = |member: &Member| Rumour {
            node: member.node,
            pulse: member.newest,
            left: member.farewell == Some(member.newest),
        };
        Message {
            pulse: self.pulse,
            wall,
            leaving: false,
            clock_off: self.clock.is_off(),
            own: self.own,
            suspects: suspects.map(suspect).collect(),
            rumours: known.map(rumour).collect(),
        }
    }

    /// How far this node's own life has come.
    pub fn pulse(&self) -> Pulse {
        self.pulse
    }

    /// What is believed of a member; `None`: it is none, or this node.
    pub fn state(&self, node: NodeId) -> Option<MemberState> {
        self.place(node).map(|at| self.members[at].state)
    }

    /// This node's clock among the others'.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// One member as it is seen from here; `None`: it is none, or this node.
    pub fn view(&self, node: NodeId, now: Moment) -> Option<View> {
        let member = &self.members[self.place(node)?];
        Some(View {
            state: member.state,
            phi: member.direct.phi(now),
            silence_ms: member.direct.silence_ms(now),
            elsewhere_ms: member.hearsay.map(|at| now.since(at)),
            pulse: member.pulse,
            own: member.own,
            clock_off: member.clock_off,
            clock_ms: self.clock.offset_ms(node),
            suspected_by: self.witnesses_against(member).collect(),
        })
    }
}
