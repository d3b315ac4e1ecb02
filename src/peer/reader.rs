//! The receiving half of a link: reads as much as there is, and hands over whole envelopes.
//!
//! The reader also keeps the link's time: it asks the outbox for a ping when nothing was sent
//! for a while, and gives the link up when nothing arrives for too long. Silence counts only
//! while the reader waits: a slow inbox does not kill its own link.

use std::mem;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::MissedTickBehavior;

use crate::base::id::NodeId;

use super::counters::Counters;
use super::frame::{self, Batch};
use super::inbox::{Inbox, Settling};
use super::message::Message;
use super::outbox::Outbox;
use super::state::DownReason;

/// What a link's read buffer begins with: a busy link's batch fits into one read.
const BUFFER_SIZE: usize = 256 << 10;

/// Free bytes that a read finds at least.
const READ_SIZE_MIN: usize = 64 << 10;

/// A buffer that grew beyond this many bytes is given back once it is empty.
const KEEP_SIZE_MAX: usize = 4 << 20;

/// What the reader needs to know.
pub struct Reader<'a> {
    /// The other end.
    pub peer: NodeId,
    /// Whom to tell.
    pub inbox: &'a dyn Inbox,
    /// The link's outbox: answers to pings go there, and it says when to stop.
    pub outbox: &'a Outbox,
    /// What to count in.
    pub counters: &'a Counters,
    /// Longest frame to take.
    pub frame_size_max: usize,
    /// After how long without sending to ping.
    pub ping_every: Duration,
    /// After how long without receiving to give up.
    pub silence_max: Duration,
}

impl Reader<'_> {
    /// Reads until the link is down, and says why it is.
    pub async fn read_all(self, socket: &mut OwnedReadHalf) -> DownReason {
        let begun = Instant::now();
        let mut buffer = BytesMut::with_capacity(BUFFER_SIZE);
        let mut reps = 0;
        let mut watch = Watch::new(self.counters);
        let mut tick = tokio::time::interval(self.ping_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gone = self.outbox.gone();
        tokio::pin!(gone);
        loop {
            let read = tokio::select! {
                biased;
                () = &mut gone => return self.outbox.closed().unwrap_or(DownReason::Asked),
                _ = tick.tick() => {
                    if self.ping_every * watch.silent_ticks(self.counters) > self.silence_max {
                        return DownReason::Silent;
                    }
                    if watch.sent_nothing(self.counters) {
                        self.outbox.ping(begun.elapsed().as_micros() as u64);
                    }
                    continue;
                }
                read = socket.read_buf(&mut buffer) => read,
            };
            match read {
                Ok(0) => return DownReason::Closed,
                Ok(count) => self.count_read(count),
                Err(error) => return DownReason::Broken(error.kind()),
            }
            match self.deliver(&mut buffer, reps, begun) {
                Ok(Delivered { reps: upto, settling, fault }) => {
                    reps = upto;
                    if let Some(settling) = settling {
                        settling.await;
                    }
                    if let Some(fault) = fault {
                        return fault;
                    }
                }
                Err(reason) => return reason,
            }
        }
    }

    fn count_read(&self, bytes: usize) {
        self.counters.reads.add(1);
        self.counters.bytes_in.add(bytes as u64);
    }

    /// Hands over what is whole and makes room for what is missing.
    fn deliver(
        &self,
        buffer: &mut BytesMut,
        reps: u64,
        begun: Instant,
    ) -> Result<Delivered, DownReason> {
        let found = frame::scan(buffer, self.frame_size_max).map_err(DownReason::Malformed)?;
        if found.whole == 0 {
            make_room(buffer, found.missing);
            return Ok(Delivered { reps, settling: None, fault: None });
        }
        let mut batch = Batch::of_envelopes(&buffer[..found.whole], reps, self.frame_size_max);
        let settling = self.inbox.messages(self.peer, &mut batch);
        // What the inbox left counts all the same, or the two ends' numbers would part.
        batch.by_ref().for_each(drop);
        self.counters.frames_in.add(batch.count);
        if let Some(fault) = batch.fault {
            let fault = Some(DownReason::Malformed(fault));
            return Ok(Delivered { reps, settling, fault });
        }
        if let Some(moment) = batch.pong {
            let now = begun.elapsed().as_micros() as u64;
            self.counters.round_trip_us.set(now.saturating_sub(moment));
        }
        let (ping, reps, goodbye) = (batch.ping, batch.reps(), batch.goodbye);
        if let Some(moment) = ping {
            // A link that is down or full answers no ping; it has worse troubles.
            let _ = self.outbox.send(&Message::Pong { moment });
        }
        consume(buffer, found.whole);
        make_room(buffer, found.missing);
        Ok(Delivered { reps, settling, fault: goodbye.then_some(DownReason::Goodbye) })
    }
}

/// What became of one read.
struct Delivered {
    /// Changes handed over since the link began.
    reps: u64,
    /// To be waited for before anything else.
    settling: Option<Settling>,
    /// What ends the link after that.
    fault: Option<DownReason>,
}

fn consume(buffer: &mut BytesMut, whole: usize) {
    if whole < buffer.len() {
        buffer.advance(whole);
    } else if buffer.capacity() > KEEP_SIZE_MAX {
        *buffer = BytesMut::with_capacity(BUFFER_SIZE);
    } else {
        buffer.clear();
    }
}

/// Makes room for a read: for what is missing, but never for more than there is already, so that
/// a claimed size alone reserves nothing.
fn make_room(buffer: &mut BytesMut, missing: usize) {
    buffer.reserve(missing.min(buffer.len()).max(READ_SIZE_MIN));
}

/// What had happened at the last tick.
struct Watch {
    bytes_in: u64,
    bytes_out: u64,
    /// Ticks in a row that saw nothing arrive. Counted, not timed: a process that was stopped
    /// for a while looks at what has arrived before it judges.
    silent: u32,
}

impl Watch {
    fn new(counters: &Counters) -> Watch {
        let (bytes_in, bytes_out) = (counters.bytes_in.read(), counters.bytes_out.read());
        Watch { bytes_in, bytes_out, silent: 0 }
    }

    /// How many ticks there was silence, with this one.
    fn silent_ticks(&mut self, counters: &Counters) -> u32 {
        let before = mem::replace(&mut self.bytes_in, counters.bytes_in.read());
        self.silent = if before == self.bytes_in { self.silent + 1 } else { 0 };
        self.silent
    }

    fn sent_nothing(&mut self, counters: &Counters) -> bool {
        let before = mem::replace(&mut self.bytes_out, counters.bytes_out.read());
        before == self.bytes_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_what_came_and_not_by_what_is_claimed() {
        let mut buffer = BytesMut::with_capacity(BUFFER_SIZE);
        buffer.extend_from_slice(&[0; 100]);
        make_room(&mut buffer, 700 << 20);
        assert!(buffer.capacity() <= 2 * BUFFER_SIZE);
        buffer.resize(1 << 20, 0);
        make_room(&mut buffer, 700 << 20);
        assert!(buffer.capacity() >= 2 << 20);
        assert!(buffer.capacity() <= 4 << 20);
    }

    #[test]
    fn a_grown_buffer_is_given_back() {
        let mut buffer = BytesMut::zeroed(KEEP_SIZE_MAX + 1);
        consume(&mut buffer, KEEP_SIZE_MAX + 1);
        assert!(buffer.is_empty() && buffer.capacity() <= BUFFER_SIZE);
    }
}
