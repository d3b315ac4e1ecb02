//! What members say to each other about themselves and the rest, and its bytes (pure).
//!
//! A heartbeat names its sender's life and count, what the sender is like now, whom it suspects, and
//! the newest counts that it knows of some others, heard by itself or by hearsay. Its size is
//! bounded whatever the size of the cluster.
//!
//! ```text
//! | format u8 | flags u8 | generation u64 | counter u64 | wall clock u64 | epoch u64
//! | processor u16 | commands u32 | recovering u16
//! | n u16 | n × suspect { node u16, generation u64 }
//! | n u16 | n × rumour  { node u16, flags u8, generation u64, counter u64 }
//! ```
//!
//! Invariant: decoding what was encoded gives the same, and no bytes make it panic or allocate
//! more than the limits below.

use crate::base::id::NodeId;
use crate::base::time::UnixMs;
use crate::base::wire::{Cursor, Put, WireError};

/// The layout above.
const FORMAT: u8 = 1;

/// Most suspects in one heartbeat. More than that is a split so wide that any are enough.
pub const SUSPECTS_MAX: usize = 64;

/// Most rumours in one heartbeat; the rest have their turn in the next ones.
pub const RUMOURS_MAX: usize = 32;

const COUNTING: u8 = 1;
const LEAVING: u8 = 2;
const CLOCK_OFF: u8 = 4;

/// What a member says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Whether it counts in R and W.
    pub counting: bool,
    /// Vnodes that it has not recovered yet.
    pub recovering: u16,
    /// Processor time that it takes, in percent of one core.
    pub processor_percent: u16,
    /// Commands that it ran in the last second.
    pub commands_per_s: u32,
    /// The epoch of its topology.
    pub epoch: u64,
}

/// How far a member's life is known: a later generation is a later process, and in each it counts
/// its heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Pulse {
    /// The process.
    pub generation: u64,
    /// Heartbeats of that process.
    pub counter: u64,
}

/// A member that the sender has not heard for too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// Who.
    pub node: NodeId,
    /// In which life; a later one is not meant.
    pub generation: u64,
}

/// What the sender knows of another member's pulse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rumour {
    /// Who.
    pub node: NodeId,
    /// How far.
    pub pulse: Pulse,
    /// Whether it ended with a goodbye.
    pub left: bool,
}

/// One heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The sender's.
    pub pulse: Pulse,
    /// The sender's wall clock.
    pub wall: UnixMs,
    /// The sender stops: its last heartbeat.
    pub leaving: bool,
    /// The sender's clock is off, so it does not coordinate.
    pub clock_off: bool,
    /// What the sender is like.
    pub own: Own,
    /// Whom it suspects; at most [`SUSPECTS_MAX`].
    pub suspects: Vec<Suspect>,
    /// What it knows of others; at most [`RUMOURS_MAX`].
    pub rumours: Vec<Rumour>,
}

impl Message {
    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(FORMAT);
        out.put_u8(
            flag(self.own.counting, COUNTING)
                | flag(self.leaving, LEAVING)
                | flag(self.clock_off, CLOCK_OFF),
        );
        out.put_u64(self.pulse.generation);
        out.put_u64(self.pulse.counter);
        out.put_u64(self.wall.0);
        out.put_u64(self.own.epoch);
        out.put_u16(self.own.processor_percent);
        out.put_u32(self.own.commands_per_s);
        out.put_u16(self.own.recovering);
        let suspects = &self.suspects[..self.suspects.len().min(SUSPECTS_MAX)];
        out.put_u16(suspects.len() as u16);
        for suspect in suspects {
            out.put_u16(suspect.node.0);
            out.put_u64(suspect.generation);
        }
        let rumours = &self.rumours[..self.rumours.len().min(RUMOURS_MAX)];
        out.put_u16(rumours.len() as u16);
        for rumour in rumours {
            out.put_u16(rumour.node.0);
            out.put_u8(flag(rumour.left, LEAVING));
            out.put_u64(rumour.pulse.generation);
            out.put_u64(rumour.pulse.counter);
        }
    }

    /// Reads one heartbeat.
    ///
    /// # Errors
    /// The bytes are not one.
    pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let mut cursor = Cursor::new(bytes);
        if cursor.u8()? != FORMAT {
            return Err(WireError::Malformed("format of a heartbeat"));
        }
        let flags = flags(cursor.u8()?, COUNTING | LEAVING | CLOCK_OFF)?;
        let pulse = Pulse { generation: cursor.u64()?, counter: cursor.u64()? };
        let (wall, epoch) = (UnixMs(cursor.u64()?), cursor.u64()?);
        let own = Own {
            counting: flags & COUNTING != 0,
            epoch,
            processor_percent: cursor.u16()?,
            commands_per_s: cursor.u32()?,
            recovering: cursor.u16()?,
        };
        let suspects = list(&mut cursor, SUSPECTS_MAX, |cursor| {
            Ok(Suspect { node: NodeId(cursor.u16()?), generation: cursor.u64()? })
        })?;
        let rumours = list(&mut cursor, RUMOURS_MAX, |cursor| {
            let (node, flags) = (NodeId(cursor.u16()?), flags_of(cursor, LEAVING)?);
            let pulse = Pulse { generation: cursor.u64()?, counter: cursor.u64()? };
            Ok(Rumour { node, pulse, left: flags & LEAVING != 0 })
        })?;
        cursor.end()?;
        let (leaving, clock_off) = (flags & LEAVING != 0, flags & CLOCK_OFF != 0);
        Ok(Message { pulse, wall, leaving, clock_off, own, suspects, rumours })
    }
}

fn flags(flags: u8, known: u8) -> Result<u8, WireError> {
    if flags & !known == 0 { Ok(flags) } else { Err(WireError::Malformed("flags of a heartbeat")) }
}

fn flags_of(cursor: &mut Cursor<'_>, known: u8) -> Result<u8, WireError> {
    flags(cursor.u8()?, known)
}

fn list<T>(
    cursor: &mut Cursor<'_>,
    most: usize,
    read: impl Fn(&mut Cursor<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = usize::from(cursor.u16()?);
    if count > most {
        return Err(WireError::Malformed("length of a list in a heartbeat"));
    }
    (0..count).map(|_| read(cursor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let pulse = || {
            (any::<u64>(), any::<u64>())
                .prop_map(|(generation, counter)| Pulse { generation, counter })
        };
        let suspect = (any::<u16>(), any::<u64>())
            .prop_map(|(node, generation)| Suspect { node: NodeId(node), generation });
        let rumour = (any::<u16>(), pulse(), any::<bool>())
            .prop_map(|(node, pulse, left)| Rumour { node: NodeId(node), pulse, left });
        let own = (any::<bool>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u64>()).prop_map(
            |(counting, recovering, processor_percent, commands_per_s, epoch)| Own {
                counting,
                recovering,
                processor_percent,
                commands_per_s,
                epoch,
            },
        );
        (
            (pulse(), any::<u64>(), any::<bool>(), any::<bool>(), own),
            proptest::collection::vec(suspect, 0..=SUSPECTS_MAX),
            proptest::collection::vec(rumour, 0..=RUMOURS_MAX),
        )
            .prop_map(|((pulse, wall, leaving, clock_off, own), suspects, rumours)| {
                Message { pulse, wall: UnixMs(wall), leaving, clock_off, own, suspects, rumours }
            })
    }

    fn bytes_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(message in message()) {
            let bytes = bytes_of(&message);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            prop_assert!(bytes.len() < 1_400, "one packet: {}", bytes.len());
        }

        #[test]
        fn no_truncation_is_taken_for_the_whole(message in message()) {
            let bytes = bytes_of(&message);
            for end in 0..bytes.len() {
                prop_assert!(Message::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>) {
            let _ = Message::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let message = Message {
            pulse: Pulse { generation: 1, counter: 2 },
            wall: UnixMs(3),
            leaving: false,
            clock_off: true,
            own: Own {
                counting: true,
                recovering: 7,
                processor_percent: 5,
                commands_per_s: 6,
                epoch: 4,
            },
            suspects: vec![Suspect { node: NodeId(8), generation: 9 }],
            rumours: vec![Rumour {
                node: NodeId(10),
                pulse: Pulse { generation: 11, counter: 12 },
                left: true,
            }],
        };
        #[rustfmt::skip]
        let pinned = [
            1, 5,
            1, 0, 0, 0, 0, 0, 0, 0,  2, 0, 0, 0, 0, 0, 0, 0,
            3, 0, 0, 0, 0, 0, 0, 0,  4, 0, 0, 0, 0, 0, 0, 0,
            5, 0,  6, 0, 0, 0,  7, 0,
            1, 0,  8, 0,  9, 0, 0, 0, 0, 0, 0, 0,
            1, 0,  10, 0,  2,  11, 0, 0, 0, 0, 0, 0, 0,  12, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes_of(&message), pinned);
    }
}
