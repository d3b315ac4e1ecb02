//! Writers that are cut off at any moment, and know afterwards what a key may hold.
//!
//! Every writer has keys of its own, so what each of them may hold is known exactly:
//!
//! ```text
//!  sent:     SET 1   SET 2   DEL   SET 3 │ connection lost
//!  answered: OK      OK                  │
//!            may hold:  2 (acknowledged), nothing, 3 (sent later, never answered)
//! ```
//!
//! Invariant: a key's `maybe` lists, in the order they were sent, the writes after the last
//! acknowledged one that were neither acknowledged nor refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::{Client, Value, encode};
use super::filler::{noise, prose};

/// Commands in one pipeline.
const BATCH: usize = 16;

/// String keys of a writer: enough for old values to lie deep in the log.
const STRINGS: usize = 1_500;

/// The same in a cluster, where reading them all takes longer.
const STRINGS_OF_CLUSTER: usize = 400;

/// Half of all writes go to so many of them.
const BUSY: usize = 40;

const COUNTERS: usize = 12;

/// Every so many-th value expires after an hour.
const LASTING: u64 = 7;

/// What clients are promised, and so what is asked of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judge {
    /// A node alone: every reply is checked, and what is there after a restart stays.
    Alone,
    /// R + W > N: what was acknowledged is seen by all that comes later. Writes that were never
    /// answered may show up later.
    Quorum,
    /// R + W ≤ N: nothing acknowledged is lost unless a later write saw it. When a coordinator
    /// dies, the next one may not have seen the last writes yet; a delete that it runs then
    /// leaves them. A later SET is the winner all the same.
    Eventual,
}

/// A write by its number among the writer's; what it puts there follows from that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Write {
    Set(u64),
    Delete(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Held {
    acknowledged: Write,
    maybe: Vec<Write>,
    /// Earlier writes that the acknowledged one, a delete, may not have seen.
    unseen: Vec<Write>,
}

impl Held {
    fn nothing() -> Held {
        Held { acknowledged: Write::Delete(0), maybe: vec![], unseen: vec![] }
    }

    fn acknowledge(&mut self, write: Write, judge: Judge) {
        let at = self.maybe.iter().position(|&sent| sent == write).expect("it was sent");
        let earlier = self.maybe.drain(..=at);
        if judge == Judge::Eventual && matches!(write, Write::Delete(_)) {
            self.unseen.push(self.acknowledged);
            self.unseen.extend(earlier);
        } else {
            self.unseen.clear();
        }
        self.acknowledged = write;
    }

    fn refuse(&mut self, write: Write) {
        let at = self.maybe.iter().position(|&sent| sent == write).expect("it was sent");
        self.maybe.remove(at);
    }

    /// The write that left `value`, if it may be there.
    fn origin(&self, key: &str, value: &Value) -> Option<Write> {
        let may_be = |write: &Write| match (write, value) {
            (Write::Set(number), Value::Bulk(bytes)) => *bytes == text(key, *number),
            (Write::Delete(_), value) => value.is_nothing(),
            _ => false,
        };
        let latest = self.maybe.iter().rev().chain([&self.acknowledged]);
        latest.chain(&self.unseen).copied().find(may_be)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    acknowledged: i64,
    /// Sent and not refused.
    sent: i64,
}

/// What write `number` puts into `key`: of many lengths, some worth compressing.
fn text(key: &str, number: u64) -> Vec<u8> {
    let len = match number % 16 {
        0 => number * 37 % 6_000,
        1..8 => 200 + number * 7 % 500,
        _ => number % 60,
    } as usize;
    let mut text = format!("{key}={number}:").into_bytes();
    text.extend(if number.is_multiple_of(2) { prose(number, len) } else { noise(number, len) });
    text
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize, Write),
    Get(usize),
    Increment(usize),
}

/// One client's keys, and what may be in them.
#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    judge: Judge,
    strings: Vec<Held>,
    counters: Vec<Count>,
    chance: u64,
    /// Numbers the writes.
    next: u64,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Writes that were refused: nothing was done.
    pub(crate) refused: u64,
}

impl Writer {
    pub(crate) fn new(name: &str, judge: Judge) -> Writer {
        let strings = if judge == Judge::Alone { STRINGS } else { STRINGS_OF_CLUSTER };
        let seed = name.bytes().fold(17, |seed: u64, byte| seed * 31 + u64::from(byte));
        Writer {
            name: name.to_owned(),
            judge,
            strings: vec![Held::nothing(); strings],
            counters: vec![Count::default(); COUNTERS],
            chance: seed,
            next: 1,
            acknowledged: 0,
            refused: 0,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.chance >> 33) as usize % below
    }

    fn key(&self, string: usize) -> String {
        format!("{}:s:{string}", self.name)
    }

    fn counter(&self, counter: usize) -> String {
        format!("{}:c:{counter}", self.name)
    }

    fn act(&mut self) -> Act {
        let range = if self.draw(2) == 0 { BUSY } else { self.strings.len() };
        let string = self.draw(range);
        self.next += 1;
        match self.draw(16) {
            0..9 => Act::Write(string, Write::Set(self.next)),
            9 => Act::Write(string, Write::Delete(self.next)),
            10..12 => Act::Get(string),
            _ => Act::Increment(self.draw(COUNTERS)),
        }
    }

    /// Notes that `act` is sent, and encodes it.
    fn sent(&mut self, act: Act, out: &mut Vec<u8>) {
        match act {
            Act::Write(string, write @ Write::Set(number)) => {
                self.strings[string].maybe.push(write);
                let key = self.key(string);
                let value = text(&key, number);
                let (key, hour) = (key.as_bytes(), b"3600000".as_slice());
                if number.is_multiple_of(LASTING) {
                    encode(&[b"SET", key, &value, b"PX", hour], out);
                } else {
                    encode(&[b"SET", key, &value], out);
                }
            }
            Act::Write(string, write @ Write::Delete(_)) => {
                self.strings[string].maybe.push(write);
                encode(&["DEL", &self.key(string)], out);
            }
            Act::Get(string) => encode(&["GET", &self.key(string)], out),
            Act::Increment(counter) => {
                self.counters[counter].sent += 1;
                encode(&["INCR", &self.counter(counter)], out);
            }
        }
    }

    /// Notes what was answered.
    fn answered(&mut self, act: Act, reply: &Value) {
        let key = match act {
            Act::Write(string, _) | Act::Get(string) => self.key(string),
            Act::Increment(counter) => self.counter(counter),
        };
        let is_write = !matches!(act, Act::Get(_));
        let is_alone = self.judge == Judge::Alone;
        match (act, reply) {
            (Act::Write(string, write @ Write::Set(_)), Value::Simple(ok)) if ok == "OK" => {
                self.strings[string].acknowledge(write, self.judge);
            }
            (Act::Write(string, write @ Write::Delete(_)), Value::Integer(0 | 1)) => {
                self.strings[string].acknowledge(write, self.judge);
            }
            (Act::Increment(counter), &Value::Integer(total)) => {
                let count = &mut self.counters[counter];
                assert!(total <= count.sent, "{key}: {total} after {count:?}");
                assert!(!is_alone || total > count.acknowledged, "{key}: {total} after {count:?}");
                count.acknowledged += 1;
            }
            (Act::Get(string), Value::Bulk(_) | Value::Nil) => {
                let held = &self.strings[string];
                assert!(
                    !is_alone || held.origin(&key, reply).is_some(),
                    "{key} held {reply:?}, may hold {held:?}"
                );
            }
            _ if reply.is_refusal() => self.refused(act),
            (_, Value::Error(text)) if text.starts_with("UNCERTAIN") => {}
            _ => panic!("{key}: {act:?} was answered {reply:?}"),
        }
        self.acknowledged += u64::from(is_write && reply.error_code().is_none());
    }

    fn refused(&mut self, act: Act) {
        self.refused += 1;
        match act {
            Act::Write(string, write) => self.strings[string].refuse(write),
            Act::Increment(counter) => self.counters[counter].sent -= 1,
            Act::Get(_) => {}
        }
    }

    /// Sends one pipeline and notes what was answered; the error says that the connection ended.
    pub(crate) fn batch(&mut self, client: &mut Client) -> std::io::Result<()> {
        let acts: Vec<Act> = (0..BATCH).map(|_| self.act()).collect();
        let mut bytes = Vec::new();
        acts.iter().for_each(|&act| self.sent(act, &mut bytes));
        client.send_raw(&bytes)?;
        for act in acts {
            let reply = client.receive()?;
            self.answered(act, &reply);
        }
        Ok(())
    }

    /// Reads every key, and answers which hold what they may not. `Err`: some reads were refused.
    pub(crate) fn check(&mut self, client: &mut Client) -> Result<Vec<String>, String> {
        let mut wrong = Vec::new();
        let strings = self.strings.len();
        for first in (0..strings).step_by(100) {
            let some = first..(first + 100).min(strings);
            let mut bytes = Vec::new();
            for string in some.clone() {
                encode(&["GET", &self.key(string)], &mut bytes);
                encode(&["PTTL", &self.key(string)], &mut bytes);
            }
            client.send_raw(&bytes).map_err(|why| why.to_string())?;
            for string in some {
                let (value, ttl) = (ask(client)?, ask(client)?);
                wrong.extend(self.judge(string, &value, &ttl));
            }
        }
        for counter in 0..COUNTERS {
            let key = self.counter(counter);
            client.send(&["GET", &key]).map_err(|why| why.to_string())?;
            let (value, count) = (ask(client)?, self.counters[counter]);
            let total = match &value {
                Value::Bulk(digits) => String::from_utf8_lossy(digits).parse().unwrap_or(-1),
                _ => i64::from(!value.is_nothing()),
            };
            if !(count.acknowledged..=count.sent).contains(&total) {
                wrong.push(format!("{key} is {value:?}, may be {count:?}"));
            }
        }
        Ok(wrong)
    }

    /// What is wrong with string key `string`. What a node alone holds now, it holds for good.
    fn judge(&mut self, string: usize, value: &Value, ttl: &Value) -> Option<String> {
        let key = self.key(string);
        let held = &mut self.strings[string];
        let Some(origin) = held.origin(&key, value) else {
            let shown: String = value.lines().concat().chars().take(60).collect();
            return Some(format!("{key} holds {shown}, may hold {held:?}"));
        };
        let is_ttl_right = match (origin, ttl) {
            (Write::Delete(_), Value::Integer(ttl)) => *ttl == -2,
            (Write::Set(number), Value::Integer(ttl)) if number.is_multiple_of(LASTING) => {
                (1..=3_600_000).contains(ttl)
            }
            (Write::Set(_), Value::Integer(ttl)) => *ttl == -1,
            _ => false,
        };
        if self.judge == Judge::Alone {
            *held = Held { acknowledged: origin, ..Held::nothing() };
        }
        (!is_ttl_right).then(|| format!("{key} of {origin:?} has a PTTL of {ttl:?}"))
    }
}

/// The next reply; `Err` if it says to ask again.
fn ask(client: &mut Client) -> Result<Value, String> {
    match client.receive() {
        Ok(reply) if reply.error_code().is_none() => Ok(reply),
        Ok(reply) => Err(format!("{reply:?}")),
        Err(why) => Err(why.to_string()),
    }
}

/// Writers at work, each on its connection, until they are cut off or told to stop.
#[derive(Debug)]
pub(crate) struct Work {
    is_over: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Writer>>,
}

impl Work {
    /// Sets `writers` to work, the first on the first of `nodes` and so on round.
    pub(crate) fn start(writers: Vec<Writer>, nodes: &[SocketAddr]) -> Work {
        let is_over = Arc::new(AtomicBool::new(false));
        let batches = Arc::new(AtomicU64::new(0));
        let thread = |(mut writer, node): (Writer, SocketAddr)| {
            let (is_over, batches) = (Arc::clone(&is_over), Arc::clone(&batches));
            thread::spawn(move || {
                // Nothing was sent on a connection that cannot be made.
                let connected = Client::connect_within(node, Duration::from_secs(20));
                let Ok(mut client) = connected else { return writer };
                while !is_over.load(Ordering::SeqCst) && writer.batch(&mut client).is_ok() {
                    batches.fetch_add(1, Ordering::SeqCst);
                }
                writer
            })
        };
        let nodes = nodes.iter().copied().cycle();
        let threads = writers.into_iter().zip(nodes).map(thread).collect();
        Work { is_over, batches, threads }
    }

    /// Pipelines that were answered to the end so far.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::SeqCst)
    }

    /// Tells those that still work to stop, and answers all writers.
    pub(crate) fn finish(self) -> Vec<Writer> {
        self.is_over.store(true, Ordering::SeqCst);
        let join = |thread: JoinHandle<Writer>| thread.join().expect("every answer was right");
        self.threads.into_iter().map(join).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets 2, 3 and 4 on key 0: the first acknowledged, the others never answered.
    fn cut_off(judge: Judge) -> Writer {
        let mut writer = Writer::new("writer", judge);
        let acts = [2, 3, 4].map(|number| Act::Write(0, Write::Set(number)));
        acts.iter().for_each(|&act| writer.sent(act, &mut Vec::new()));
        writer.answered(acts[0], &Value::ok());
        writer
    }

    fn holds(number: u64) -> Value {
        Value::Bulk(text("writer:s:0", number))
    }

    #[test]
    fn what_is_acknowledged_or_was_sent_later_may_be_there() {
        for number in 2..=4 {
            let mut writer = cut_off(Judge::Alone);
            assert_eq!(writer.judge(0, &holds(number), &Value::Integer(-1)), None);
            // What a node alone held once, it must hold again.
            let other = if number == 4 { 3 } else { 4 };
            assert!(writer.judge(0, &holds(other), &Value::Integer(-1)).is_some());
        }
    }

    #[test]
    fn a_lost_write_is_seen() {
        let mut writer = cut_off(Judge::Quorum);
        assert!(writer.judge(0, &Value::Nil, &Value::Integer(-2)).is_some());
        assert!(writer.judge(0, &holds(1), &Value::Integer(-1)).is_some());
        assert!(writer.judge(0, &Value::bulk("writer:s:0=2"), &Value::Integer(-1)).is_some());
        let lasting = writer.judge(0, &holds(2), &Value::Integer(3_000));
        assert!(lasting.is_some(), "a time to live from nowhere");
        writer.answered(Act::Write(0, Write::Set(3)), &Value::Error("NOQUORUM no".to_owned()));
        assert!(writer.judge(0, &holds(3), &Value::Integer(-1)).is_some(), "it was refused");
        assert_eq!(writer.judge(0, &holds(4), &Value::Integer(-1)), None);
    }

    #[test]
    fn only_an_eventual_delete_may_leave_what_was_there() {
        for (judge, is_left) in [(Judge::Eventual, true), (Judge::Quorum, false)] {
            let mut writer = cut_off(judge);
            for (write, reply) in
                [(Write::Delete(5), Value::Integer(0)), (Write::Set(6), Value::ok())]
            {
                writer.sent(Act::Write(0, write), &mut Vec::new());
                writer.answered(Act::Write(0, write), &reply);
                let is_fine = writer.judge(0, &holds(2), &Value::Integer(-1)).is_none();
                assert_eq!(is_fine, is_left && write == Write::Delete(5), "{judge:?} {write:?}");
            }
        }
    }
}
