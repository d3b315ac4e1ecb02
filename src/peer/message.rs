//! What two nodes say to each other, and its bytes.
//!
//! A message is one frame:
//!
//! ```text
//! | size u32 | kind u8 | fixed fields, little-endian | at most one run of bytes, to the end |
//!            '------------------ size counts these ---------------------------------------'
//! ```
//!
//! Decoding borrows from the read buffer and encoding appends to a buffer that is there already,
//! so a frame costs no allocation on either side. What the inner bytes mean (records, requests,
//! exchanges, gossip) belongs to the rooms that made them; this room only carries them.

use bytes::BytesMut;

use crate::base::hash::Digest;
use crate::base::id::VnodeId;
use crate::base::wire::{Cursor, Put, WireError};

/// Bytes before the kind: the frame's size.
pub const SIZE_PREFIX: usize = 4;

/// Largest size prefix, kind and fixed fields of any message ([`Message::Check`]'s 32 bytes fit).
const HEAD_SIZE_MAX: usize = 48;

/// Flag of [`Message::Fwd`]: the client speaks RESP3 and the reply must, too.
pub const FWD_RESP3: u8 = 1;

/// Flag of [`Message::Put`]'s number: the record is part of an exchange.
pub const PUT_EXCHANGED: u64 = 1 << 63;

/// The number of a [`Message::Put`] of an exchange that wants no answer.
pub const PUT_UNASKED: u64 = u64::MAX;

/// Flag of [`Message::Fwd`]: the client's connection is in READONLY.
pub const FWD_READONLY: u8 = 2;

mod kind {
    pub(super) const REP: u8 = 1;
    pub(super) const REP_ACK: u8 = 2;
    pub(super) const FWD: u8 = 3;
    pub(super) const FWD_REPLY: u8 = 4;
    pub(super) const CHECK: u8 = 5;
    pub(super) const CHECK_REPLY: u8 = 6;
    pub(super) const PUT: u8 = 7;
    pub(super) const PUT_ACK: u8 = 8;
    pub(super) const TREE: u8 = 9;
    pub(super) const PING: u8 = 10;
    pub(super) const PONG: u8 = 11;
    pub(super) const STATUS: u8 = 12;
    pub(super) const GOSSIP: u8 = 13;
    pub(super) const GOODBYE: u8 = 14;
    pub(super) const RESUME: u8 = 15;
    pub(super) const CAUGHT_UP: u8 = 16;
    pub(super) const SETTLED: u8 = 17;
    pub(super) const FWD_END: u8 = 18;
}

/// What became of a forwarded request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FwdStatus {
    /// It ran; the reply (which may be an error of the command) is the client's.
    Ok,
    /// Nothing was done: the client may be told to retry, or another node be asked.
    NotRun,
    /// It may have been done.
    Uncertain,
    /// It waited, nothing was done, and it waits no more: whoever coordinates now is to be asked.
    Unserved,
}

impl FwdStatus {
    const fn code(self) -> u8 {
        match self {
            FwdStatus::Ok => 0,
            FwdStatus::NotRun => 1,
            FwdStatus::Uncertain => 2,
            FwdStatus::Unserved => 3,
        }
    }

    const fn of(code: u8) -> Result<FwdStatus, WireError> {
        match code {
            0 => Ok(FwdStatus::Ok),
            1 => Ok(FwdStatus::NotRun),
            2 => Ok(FwdStatus::Uncertain),
            3 => Ok(FwdStatus::Unserved),
            _ => Err(WireError::Malformed("status of a forwarded request")),
        }
    }
}

/// What a replica answers to a [`Message::Check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// It holds the same.
    Same,
    /// It holds this record instead; no bytes mean that it holds nothing.
    Differs(&'a [u8]),
    /// It is recovering: its answer counts in no quorum.
    NotCounting,
}

/// One message between peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// A change to apply. Every `Rep` has a stream sequence number that both ends count: from 1 in
    /// each run of the sender's process, and where a link begins, from what `Resume` says.
    Rep {
        /// The vnode of the record's key.
        vnode: VnodeId,
        /// The change, as the log holds it.
        record: &'a [u8],
    },
    /// Every `Rep` up to this stream sequence number is held.
    RepAck {
        /// The highest number that is held, with all before it.
        upto: u64,
    },
    /// A client's request for the vnode's coordinator to run.
    Fwd {
        /// The sender's number for the reply.
        id: u64,
        /// [`FWD_RESP3`], [`FWD_READONLY`]; other bits are the node room's to give.
        flags: u8,
        /// Replicas that a read asks.
        r: u8,
        /// Replicas that a write needs.
        w: u8,
        /// Milliseconds left until the client is given up on; 0: it waits until [`Self::FwdEnd`].
        deadline_ms: u32,
        /// The request as the client sent it, in RESP.
        request: &'a [u8],
    },
    /// Whoever asked this `Fwd` waits no longer: it is answered at once, unless it was before.
    FwdEnd {
        /// The request's number.
        id: u64,
        /// Why; the node room's to give.
        ending: u8,
    },
    /// The answer to a `Fwd`.
    FwdReply {
        /// The request's number.
        id: u64,
        /// Whether it ran.
        status: FwdStatus,
        /// The reply in RESP.
        reply: &'a [u8],
    },
    /// A question: do you hold the same of this key?
    Check {
        /// The sender's number for the reply.
        id: u64,
        /// The key's vnode.
        vnode: VnodeId,
        /// The node room's to give.
        flags: u8,
        /// The digest of what the sender holds.
        digest: Digest,
        /// The key.
        key: &'a [u8],
    },
    /// The answer to a `Check`.
    CheckReply {
        /// The question's number.
        id: u64,
        /// Same, or what is held instead.
        verdict: Verdict<'a>,
    },
    /// A record to join (write-back, repair) outside of the stream of `Rep`s.
    Put {
        /// The sender's number for the acknowledgement, with [`PUT_EXCHANGED`], or [`PUT_UNASKED`].
        id: u64,
        /// The vnode of the record's key.
        vnode: VnodeId,
        /// The whole record.
        record: &'a [u8],
    },
    /// The answer to a `Put`.
    PutAck {
        /// The `Put`'s number.
        id: u64,
        /// Whether the record is held and the replica counts.
        ok: bool,
    },
    /// A step of an exchange of two hash trees.
    Tree {
        /// Whose trees.
        vnode: VnodeId,
        /// Which step; the machine's to give.
        kind: u8,
        /// The step.
        body: &'a [u8],
    },
    /// "Are you there?" The link itself sends, answers and hides these.
    Ping {
        /// The sender's moment in microseconds; it comes back in the `Pong`.
        moment: u64,
    },
    /// The answer to a `Ping`.
    Pong {
        /// The `Ping`'s moment.
        moment: u64,
    },
    /// A node's word about itself (recovering or not, …).
    Status {
        /// What it says; the node room's to give.
        body: &'a [u8],
    },
    /// A round of gossip, on the connection that is for it.
    Gossip {
        /// What the membership machine made.
        body: &'a [u8],
    },
    /// "I am leaving in order": the last word on a link. The link itself hears and hides it.
    Goodbye,
    /// The sender's stream goes on with the change after this one.
    Resume {
        /// The stream sequence number of the last change before the next one.
        after: u64,
        /// Whether changes before it may never have been sent, so that the receiver must compare
        /// itself with the sender.
        gap: bool,
    },
    /// All that had to be sent again was sent before this. Acknowledged by a `RepAck` at any rate.
    CaughtUp {
        /// The stream sequence number of the last change so far.
        upto: u64,
    },
    /// The sender of this has compared itself with its receiver, which had told of a gap.
    Settled {
        /// What that `Resume` said.
        after: u64,
    },
}

/// The start of a frame, gathered on the stack so that a frame is two copies.
struct Head {
    bytes: [u8; HEAD_SIZE_MAX],
    len: usize,
}

impl Put for Head {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl Head {
    #[inline]
    fn new(kind: u8) -> Head {
        let mut head = Head { bytes: [0; HEAD_SIZE_MAX], len: SIZE_PREFIX };
        head.put_u8(kind);
        head
    }

    /// Appends the frame of this head and `tail`.
    #[inline]
    fn seal(mut self, tail: &[u8], out: &mut BytesMut) {
        let size = frame_size(self.len - SIZE_PREFIX + tail.len());
        self.bytes[..SIZE_PREFIX].copy_from_slice(&size);
        out.reserve(self.len + tail.len());
        out.extend_from_slice(&self.bytes[..self.len]);
        out.extend_from_slice(tail);
    }
}

fn frame_size(size: usize) -> [u8; SIZE_PREFIX] {
    // Far above every limit of the house: whoever built such a frame has a bug.
    u32::try_from(size).expect("a frame is smaller than 4 GiB").to_le_bytes()
}

impl<'a> Message<'a> {
    /// Appends this message's frame to `out`.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Message::Rep { vnode, record } => {
                let mut head = Head::new(kind::REP);
                head.put_u16(vnode.0);
                head.seal(record, out);
            }
            Message::RepAck { upto } => number(kind::REP_ACK, upto).seal(&[], out),
            Message::Fwd { id, flags, r, w, deadline_ms, request } => {
                let mut head = number(kind::FWD, id);
                head.put(&[flags, r, w]);
                head.put_u32(deadline_ms);
                head.seal(request, out);
            }
            Message::FwdEnd { id, ending } => {
                let mut head = number(kind::FWD_END, id);
                head.put_u8(ending);
                head.seal(&[], out);
            }
            Message::FwdReply { id, status, reply } => {
                let mut head = number(kind::FWD_REPLY, id);
                head.put_u8(status.code());
                head.seal(reply, out);
            }
            Message::Check { id, vnode, flags, digest, key } => {
                let mut head = number(kind::CHECK, id);
                head.put_u16(vnode.0);
                head.put_u8(flags);
                head.put_u128(digest.0);
                head.seal(key, out);
            }
            Message::CheckReply { id, verdict } => check_reply(id, verdict, out),
            Message::Put { id, vnode, record } => {
                let mut head = number(kind::PUT, id);
                head.put_u16(vnode.0);
                head.seal(record, out);
            }
            Message::PutAck { id, ok } => {
                let mut head = number(kind::PUT_ACK, id);
                head.put_u8(u8::from(ok));
                head.seal(&[], out);
            }
            Message::Tree { vnode, kind, body } => {
                let mut head = Head::new(kind::TREE);
                head.put_u16(vnode.0);
                head.put_u8(kind);
                head.seal(body, out);
            }
            Message::Ping { moment } => number(kind::PING, moment).seal(&[], out),
            Message::Pong { moment } => number(kind::PONG, moment).seal(&[], out),
            Message::Status { body } => Head::new(kind::STATUS).seal(body, out),
            Message::Gossip { body } => Head::new(kind::GOSSIP).seal(body, out),
            Message::Goodbye => Head::new(kind::GOODBYE).seal(&[], out),
            Message::Resume { after, gap } => {
                let mut head = number(kind::RESUME, after);
                head.put_u8(u8::from(gap));
                head.seal(&[], out);
            }
            Message::CaughtUp { upto } => number(kind::CAUGHT_UP, upto).seal(&[], out),
            Message::Settled { after } => number(kind::SETTLED, after).seal(&[], out),
        }
    }

    /// The message of one frame's kind and body (without its size).
    ///
    /// Whatever the bytes, nothing panics and nothing is allocated.
    #[inline]
    pub fn decode(frame: &'a [u8]) -> Result<Message<'a>, WireError> {
        let mut at = Cursor::new(frame);
        Ok(match at.u8()? {
            kind::REP => Message::Rep { vnode: VnodeId(at.u16()?), record: at.rest() },
            kind::REP_ACK => Message::RepAck { upto: last(at)? },
            kind::FWD => Message::Fwd {
                id: at.u64()?,
                flags: at.u8()?,
                r: at.u8()?,
                w: at.u8()?,
                deadline_ms: at.u32()?,
                request: at.rest(),
            },
            kind::FWD_END => {
                let (id, ending) = (at.u64()?, at.u8()?);
                at.end()?;
                Message::FwdEnd { id, ending }
            }
            kind::FWD_REPLY => Message::FwdReply {
                id: at.u64()?,
                status: FwdStatus::of(at.u8()?)?,
                reply: at.rest(),
            },
            kind::CHECK => Message::Check {
                id: at.u64()?,
                vnode: VnodeId(at.u16()?),
                flags: at.u8()?,
                digest: Digest(at.u128()?),
                key: at.rest(),
            },
            kind::CHECK_REPLY => Message::CheckReply { id: at.u64()?, verdict: verdict(at)? },
            kind::PUT => {
                Message::Put { id: at.u64()?, vnode: VnodeId(at.u16()?), record: at.rest() }
            }
            kind::PUT_ACK => Message::PutAck { id: at.u64()?, ok: truth(at)? },
            kind::TREE => {
                Message::Tree { vnode: VnodeId(at.u16()?), kind: at.u8()?, body: at.rest() }
            }
            kind::PING => Message::Ping { moment: last(at)? },
            kind::PONG => Message::Pong { moment: last(at)? },
            kind::STATUS => Message::Status { body: at.rest() },
            kind::GOSSIP => Message::Gossip { body: at.rest() },
            kind::GOODBYE => at.end().map(|()| Message::Goodbye)?,
            kind::RESUME => Message::Resume { after: at.u64()?, gap: truth(at)? },
            kind::CAUGHT_UP => Message::CaughtUp { upto: last(at)? },
            kind::SETTLED => Message::Settled { after: last(at)? },
            _ => return Err(WireError::Malformed("kind of message")),
        })
    }
}

/// Whether a frame, size prefix and all, is a [`Message::Rep`].
#[inline]
pub(super) fn is_rep(frame: &[u8]) -> bool {
    frame.get(SIZE_PREFIX) == Some(&kind::REP)
}

#[inline]
fn number(kind: u8, number: u64) -> Head {
    let mut head = Head::new(kind);
    head.put_u64(number);
    head
}

fn check_reply(id: u64, verdict: Verdict<'_>, out: &mut BytesMut) {
    let mut head = number(kind::CHECK_REPLY, id);
    let (code, record): (u8, &[u8]) = match verdict {
        Verdict::Same => (0, &[]),
        Verdict::Differs(record) => (1, record),
        Verdict::NotCounting => (2, &[]),
    };
    head.put_u8(code);
    head.seal(record, out);
}

fn verdict(mut at: Cursor<'_>) -> Result<Verdict<'_>, WireError> {
    match at.u8()? {
        0 => at.end().map(|()| Verdict::Same),
        1 => Ok(Verdict::Differs(at.rest())),
        2 => at.end().map(|()| Verdict::NotCounting),
        _ => Err(WireError::Malformed("verdict")),
    }
}

fn truth(mut at: Cursor<'_>) -> Result<bool, WireError> {
    let byte = at.u8()?;
    at.end()?;
    if byte > 1 { Err(WireError::Malformed("truth")) } else { Ok(byte == 1) }
}

fn last(mut at: Cursor<'_>) -> Result<u64, WireError> {
    let number = at.u64()?;
    at.end()?;
    Ok(number)
}

/// Appends the frame of a [`Message::FwdReply`] whose reply `fill` writes in place and whose
/// status `fill` returns: the reply of a command is encoded once, where it is sent from.
pub fn encode_fwd_reply_with(
    out: &mut BytesMut,
    id: u64,
    fill: impl FnOnce(&mut BytesMut) -> FwdStatus,
) {
    let start = out.len();
    Message::FwdReply { id, status: FwdStatus::Ok, reply: &[] }.encode(out);
    let body = out.len();
    let status = fill(out);
    out[body - 1] = status.code();
    let size = frame_size(out.len() - start - SIZE_PREFIX);
    out[start..start + SIZE_PREFIX].copy_from_slice(&size);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message that owns its bytes.
    #[derive(Clone, Debug)]
    pub(crate) struct Said {
        which: u8,
        id: u64,
        vnode: u16,
        small: [u8; 3],
        wide: u128,
        bytes: Vec<u8>,
    }

    impl Said {
        pub(crate) fn message(&self) -> Message<'_> {
            let Said { id, wide, .. } = *self;
            let (vnode, bytes, [a, b, c]) = (VnodeId(self.vnode), &self.bytes[..], self.small);
            match self.which {
                1 => Message::Rep { vnode, record: bytes },
                2 => Message::RepAck { upto: id },
                3 => Message::Fwd {
                    id,
                    flags: a,
                    r: b,
                    w: c,
                    deadline_ms: wide as u32,
                    request: bytes,
                },
                4 => {
                    let mut statuses = [FwdStatus::Ok; 4];
                    statuses[1..].copy_from_slice(&[
                        FwdStatus::NotRun,
                        FwdStatus::Uncertain,
                        FwdStatus::Unserved,
                    ]);
                    Message::FwdReply { id, status: statuses[a as usize % 4], reply: bytes }
                }
                5 => Message::Check { id, vnode, flags: a, digest: Digest(wide), key: bytes },
                6 => {
                    let verdicts = [Verdict::Same, Verdict::Differs(bytes), Verdict::NotCounting];
                    Message::CheckReply { id, verdict: verdicts[a as usize % 3] }
                }
                7 => Message::Put { id, vnode, record: bytes },
                8 => Message::PutAck { id, ok: a & 1 == 1 },
                9 => Message::Tree { vnode, kind: a, body: bytes },
                10 => Message::Ping { moment: id },
                11 => Message::Pong { moment: id },
                12 => Message::Gossip { body: bytes },
                13 => Message::Goodbye,
                14 => Message::Resume { after: id, gap: a & 1 == 1 },
                15 => Message::CaughtUp { upto: id },
                16 => Message::Settled { after: id },
                17 => Message::FwdEnd { id, ending: a },
                _ => Message::Status { body: bytes },
            }
        }
    }

    pub(crate) fn said() -> impl Strategy<Value = Said> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..64);
        (1u8..=18, any::<u64>(), any::<u16>(), any::<[u8; 3]>(), any::<u128>(), bytes).prop_map(
            |(which, id, vnode, small, wide, bytes)| Said { which, id, vnode, small, wide, bytes },
        )
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(said in said()) {
            let mut out = BytesMut::new();
            said.message().encode(&mut out);
            let size = u32::from_le_bytes(out[..4].try_into().expect("four bytes"));
            prop_assert_eq!(size as usize, out.len() - SIZE_PREFIX);
            prop_assert_eq!(Message::decode(&out[SIZE_PREFIX..]), Ok(said.message()));
        }

        #[test]
        fn a_cut_message_is_another_or_none(said in said(), cut in 1usize..80) {
            let mut out = BytesMut::new();
            said.message().encode(&mut out);
            let frame = &out[SIZE_PREFIX..];
            let cut = &frame[..frame.len().saturating_sub(cut)];
            prop_assert_ne!(Message::decode(cut), Ok(said.message()));
        }

        #[test]
        fn garbage_is_no_panic(frame: Vec<u8>) {
            let _ = Message::decode(&frame);
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let mut out = BytesMut::new();
        Message::Rep { vnode: VnodeId(0x0102), record: b"ab" }.encode(&mut out);
        Message::RepAck { upto: 7 }.encode(&mut out);
        assert_eq!(
            &out[..],
            [5, 0, 0, 0, 1, 2, 1, b'a', b'b', 9, 0, 0, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn a_reply_written_in_place_is_the_same_frame() {
        let (mut whole, mut placed) = (BytesMut::new(), BytesMut::new());
        let reply = FwdStatus::NotRun;
        Message::FwdReply { id: 9, status: reply, reply: b"+OK\r\n" }.encode(&mut whole);
        encode_fwd_reply_with(&mut placed, 9, |out| {
            out.put(b"+OK\r\n");
            reply
        });
        assert_eq!(whole, placed);
    }

    #[test]
    fn unknown_kinds_and_leftovers_are_refused() {
        assert!(Message::decode(&[]).is_err());
        assert!(Message::decode(&[0]).is_err());
        assert!(Message::decode(&[200, 1, 2]).is_err());
        let mut out = BytesMut::new();
        Message::RepAck { upto: 7 }.encode(&mut out);
        out.put_u8(0);
        assert!(Message::decode(&out[SIZE_PREFIX..]).is_err());
    }
}
