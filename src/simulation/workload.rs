//! Clients: each sends one request at a time to a node, waits for the reply, thinks, goes on.

use super::frame::Outcome;
use super::ledger::{Ask, Request};
use super::plan::{COUNTER, Focus, KEYS, USES, Use, Weather};
use super::world::{Event, WARM_MS, World, place};

/// A client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// The node it is connected to.
    pub(super) home: usize,
    /// The request it waits for.
    pub(super) waits: Option<usize>,
}

/// How long a client without a node waits before it looks for another.
const RETRY_MS: u64 = 20;

impl World {
    pub(super) fn plan_clients(&mut self) {
        for client in 0..self.plan.clients {
            let home = self.chance.place(self.plan.nodes);
            self.clients.push(Client { home, waits: None });
            let when = WARM_MS + self.chance.below(self.plan.think_ms + 1);
            self.at(when, Event::Next { client });
        }
    }

    pub(super) fn next_request(&mut self, client: usize) {
        if self.ledger.requests.len() >= self.plan.requests {
            return;
        }
        // What calm worlds are judged by holds once the cluster has found itself.
        if self.plan.weather == Weather::Calm && !self.is_formed() {
            return self.after(RETRY_MS, Event::Next { client });
        }
        if !self.nodes[self.clients[client].home].alive || self.chance.percent(5) {
            let home = self.chance.place(self.plan.nodes);
            if self.nodes[home].paused || !self.nodes[home].alive {
                return self.after(RETRY_MS, Event::Next { client });
            }
            self.clients[client].home = home;
        }
        let (key, ask) = self.draw_request();
        let request = self.ledger.requests.len();
        let losses = self.ledger.happened.losses;
        self.ledger.requests.push(Request {
            key,
            ask,
            client,
            began: self.now,
            ended: None,
            write: None,
            losses,
        });
        let home = self.clients[client].home;
        self.clients[client].waits = Some(request);
        self.note(|_| {
            format!("#{request} {ask:?} of key {key} by client {client} at {}", place(home))
        });
        self.submit(home, request);
    }

    fn draw_request(&mut self) -> (usize, Ask) {
        // A history is judged best where many requests meet.
        let crowded = match self.plan.focus {
            Focus::Strict => Some(0),
            Focus::StandIns => Some(COUNTER).filter(|_| self.chance.percent(70)),
            Focus::Removals => Some(2),
            _ => None,
        };
        let crowded = crowded.filter(|_| self.chance.percent(70));
        let key = crowded.unwrap_or_else(|| self.chance.place(KEYS));
        let fresh = 1_000 + 1_000 * self.ledger.requests.len() as i64;
        let amount = self.chance.between(1, 5) as i64;
        let ask = match (USES[key], self.chance.below(100)) {
            (Use::Register, 0..45) => Ask::Set(fresh),
            (Use::Register, 45..50) => Ask::SetIfAbsent(fresh),
            (Use::Counter, 0..70) => Ask::Increment(amount),
            (Use::Cart, 0..35) => Ask::Set(fresh),
            (Use::Cart, 35..60) => Ask::Delete,
            (Use::Register | Use::Counter | Use::Cart, _) => Ask::Get,
            (Use::Mixed, 0..25) => Ask::Set(fresh),
            (Use::Mixed, 25..45) => Ask::Delete,
            (Use::Mixed, 45..75) => Ask::Increment(amount),
            (Use::Mixed, 75..80) => Ask::SetIfAbsent(fresh),
            (Use::Mixed, _) => Ask::Get,
        };
        (key, ask)
    }

    /// A client reads its reply.
    pub(super) fn reply(&mut self, at: usize, request: usize, outcome: Outcome) {
        let client = self.ledger.requests[request].client;
        if self.clients[client].waits != Some(request) {
            // Its connection is gone.
            return;
        }
        let told = match outcome {
            Outcome::Done(reply) => format!("{:?}", reply.number),
            outcome => format!("{outcome:?}"),
        };
        self.note(|_| format!("#{request} is answered by {}: {told}", place(at)));
        self.end_request(request, outcome);
        self.check_reply(request, outcome);
    }

    fn end_request(&mut self, request: usize, outcome: Outcome) {
        self.ledger.happened.uncertain += u64::from(outcome == Outcome::Uncertain);
        let asked = &mut self.ledger.requests[request];
        asked.ended = Some((self.now, outcome));
        let (client, key, write) = (asked.client, asked.key, asked.write);
        if let (Outcome::Done(_), Some(write)) = (outcome, write) {
            self.ledger.histories[key].writes[write].acknowledged = true;
        }
        self.clients[client].waits = None;
        let think = self.chance.below(self.plan.think_ms + 1);
        self.after(think, Event::Next { client });
    }

    /// The node is dead: its clients do not know what became of their requests.
    pub(super) fn disconnect_clients(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            let Client { home, waits } = self.clients[client];
            if let Some(request) = waits.filter(|_| home == node) {
                self.end_request(request, Outcome::Uncertain);
            }
        }
    }
}
