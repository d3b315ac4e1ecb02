//! How two nodes prove to each other who they are, without a socket.
//!
//! ```text
//!   dialer                              acceptor
//!     | -------- hello (nonce a) ---------> |  right cluster, known member, right direction?
//!     | <------- hello (nonce b) ---------- |
//!     | -------- proof, greeting ---------> |  knows the secret: no stranger any more
//!     | <------- proof, greeting ---------- |  or a refusal, at any step
//!
//!   packet: | "KVPR" | kind u8 | size of the body u16 | body | crc32 of all before u32 |
//!   hello:  | format u16 | format_min u16 | cluster u64 | node u16 | to u16 | boot u16 | run u64
//!           | nonce 32 bytes | channel u8 |
//!   proof:  | keyed BLAKE3 of role, both hellos and the greeting: 32 bytes | greeting |
//! ```
//!
//! The secret never travels. Both nonces are under both proofs, so a recorded proof is worth
//! nothing later; the role is, too, so a proof cannot be sent back to its maker. The dialer
//! proves first: whoever only connects learns nothing that depends on the secret. What follows
//! on the link is not encrypted: the peer port belongs on a trusted network.
//!
//! Invariant: until its proof is right, a stranger costs [`PEER_HELLO_SIZE_MAX`] bytes a packet
//! and has seen no greeting.

use std::fmt;
use std::io::ErrorKind;

use crate::base::id::{Boot, NodeId};
use crate::base::limits::PEER_HELLO_SIZE_MAX;
use crate::base::wire::{Cursor, Put, WireError};

/// The format this code speaks on links. 2: hellos name a channel, and streams outlive links. 3:
/// greetings name lives by their marks.
pub const FORMAT: u16 = 3;

/// The oldest format this code still speaks.
pub const FORMAT_MIN: u16 = 3;

/// Bytes before a packet's body.
pub const PACKET_HEAD_SIZE: usize = 7;

const MAGIC: [u8; 4] = *b"KVPR";
const CRC_SIZE: usize = 4;
const PROOF_SIZE: usize = 32;

/// Longest greeting, in bytes.
pub const GREETING_SIZE_MAX: usize = PEER_HELLO_SIZE_MAX - PACKET_HEAD_SIZE - CRC_SIZE - PROOF_SIZE;

/// Why a handshake failed. There is no link, and nobody was told of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloError {
    /// The other end speaks something else.
    WrongMagic,
    /// The other end speaks none of our formats.
    UnsupportedFormat {
        /// Its newest.
        format: u16,
        /// Its oldest.
        format_min: u16,
    },
    /// The other end belongs to another cluster.
    WrongCluster,
    /// The other end does not know the secret.
    WrongSecret,
    /// A packet was damaged on its way.
    BadChecksum,
    /// A packet claims more than [`PEER_HELLO_SIZE_MAX`] bytes.
    TooLarge,
    /// A packet that cannot be read.
    Malformed(WireError),
    /// A packet out of turn.
    OutOfTurn,
    /// The handshake took too long.
    Timeout,
    /// Another process is up under this node's id.
    DuplicateNode(NodeId),
    /// Not a member, or not the one that was dialed.
    UnknownNode(NodeId),
    /// A node dialed itself.
    SelfConnection,
    /// The node with the higher id dialed.
    WrongDirection,
    /// This node did not want the link, and why.
    Rejected(String),
    /// The other end refused.
    Refused(Refusal),
    /// This node is shutting down.
    Stopping,
    /// The connection broke.
    Io(ErrorKind),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelloError::WrongMagic => f.write_str("the other end does not speak this protocol"),
            HelloError::UnsupportedFormat { format, format_min } => {
                write!(f, "the peer speaks formats {format_min} to {format}")?;
                write!(f, ", this node {FORMAT_MIN} to {FORMAT}")
            }
            HelloError::WrongCluster => f.write_str("the peer belongs to another cluster"),
            HelloError::WrongSecret => f.write_str("the peer does not know the cluster's secret"),
            HelloError::BadChecksum => f.write_str("a packet of the handshake was damaged"),
            HelloError::TooLarge => f.write_str("a packet of the handshake is over the limit"),
            HelloError::Malformed(error) => write!(f, "a packet cannot be read: {error}"),
            HelloError::OutOfTurn => f.write_str("a packet of the handshake came out of turn"),
            HelloError::Timeout => f.write_str("the handshake took too long"),
            HelloError::DuplicateNode(node) => {
                write!(f, "another process is up as {node}")
            }
            HelloError::UnknownNode(node) => write!(f, "{node} is not expected here"),
            HelloError::SelfConnection => f.write_str("the node has reached itself"),
            HelloError::WrongDirection => f.write_str("the node with the lower id has to dial"),
            HelloError::Rejected(why) => write!(f, "this node rejects the link: {why}"),
            HelloError::Refused(refusal) => write!(f, "the peer refuses: {refusal}"),
            HelloError::Stopping => f.write_str("this node is shutting down"),
            HelloError::Io(kind) => write!(f, "the connection broke: {kind}"),
        }
    }
}

impl std::error::Error for HelloError {}

impl From<WireError> for HelloError {
    fn from(error: WireError) -> HelloError {
        HelloError::Malformed(error)
    }
}

/// What a node is told when it is refused, so that its operator need not guess.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No common format.
    UnsupportedFormat,
    /// Another cluster.
    WrongCluster,
    /// A wrong proof.
    WrongSecret,
    /// Not a member here, or meant for another.
    UnknownNode,
    /// Another process is up under that id.
    DuplicateNode,
    /// It is oneself.
    SelfConnection,
    /// The lower id has to dial.
    WrongDirection,
    /// The node does not want the link now.
    Rejected,
    /// Anything else.
    Other,
}

const REFUSALS: [Refusal; 9] = [
    Refusal::Other,
    Refusal::UnsupportedFormat,
    Refusal::WrongCluster,
    Refusal::WrongSecret,
    Refusal::UnknownNode,
    Refusal::DuplicateNode,
    Refusal::SelfConnection,
    Refusal::WrongDirection,
    Refusal::Rejected,
];

impl Refusal {
    fn code(self) -> u8 {
        REFUSALS.iter().position(|&refusal| refusal == self).unwrap_or(0) as u8
    }

    fn of(code: u8) -> Refusal {
        REFUSALS.get(code as usize).copied().unwrap_or(Refusal::Other)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::UnsupportedFormat => "no common format",
            Refusal::WrongCluster => "it belongs to another cluster",
            Refusal::WrongSecret => "it has another secret",
            Refusal::UnknownNode => "this node is no member there",
            Refusal::DuplicateNode => "another process is up under this node's id",
            Refusal::SelfConnection => "it is the same node",
            Refusal::WrongDirection => "the node with the lower id has to dial",
            Refusal::Rejected => "it does not want the link now",
            Refusal::Other => "no reason given",
        })
    }
}

impl HelloError {
    /// What the other end is told; `None` when it would not understand or is not there.
    pub fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            HelloError::UnsupportedFormat { .. } => Refusal::UnsupportedFormat,
            HelloError::WrongCluster => Refusal::WrongCluster,
            HelloError::WrongSecret => Refusal::WrongSecret,
            HelloError::UnknownNode(_) => Refusal::UnknownNode,
            HelloError::DuplicateNode(_) => Refusal::DuplicateNode,
            HelloError::SelfConnection => Refusal::SelfConnection,
            HelloError::WrongDirection => Refusal::WrongDirection,
            HelloError::Rejected(_) | HelloError::Stopping => Refusal::Rejected,
            HelloError::BadChecksum | HelloError::Malformed(_) | HelloError::OutOfTurn => {
                Refusal::Other
            }
            HelloError::WrongMagic
            | HelloError::TooLarge
            | HelloError::Timeout
            | HelloError::Refused(_)
            | HelloError::Io(_) => return None,
        })
    }
}

/// The number of a cluster: a hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// The number of the cluster called `name`.
    pub fn of(name: &str) -> ClusterId {
        let hash = blake3::hash(name.as_bytes());
        ClusterId(Cursor::new(hash.as_bytes()).u64().expect("a hash has 32 bytes"))
    }
}

/// The key of the proofs, derived from the cluster's secret. It prints as nothing.
#[derive(Clone)]
pub struct ProofKey([u8; 32]);

impl ProofKey {
    /// The key that follows from `secret`.
    pub fn of(secret: &[u8]) -> ProofKey {
        ProofKey(blake3::derive_key("kvorum 2026 proof between peers", secret))
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(…)")
    }
}

/// Who this node says that it is, and how it proves it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub boot: Boot,
    /// This run of its process, at random: two processes under one id differ in it.
    pub run: u64,
    /// The key of its proofs.
    pub key: ProofKey,
}

/// What a connection between two nodes is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The link of the pair: everything but gossip, in both directions.
    Data,
    /// Gossip, from the dialer to the acceptor only. Either node may dial.
    Gossip,
}

impl Channel {
    const fn code(self) -> u8 {
        match self {
            Channel::Data => 0,
            Channel::Gossip => 1,
        }
    }

    const fn of(code: u8) -> Result<Channel, WireError> {
        match code {
            0 => Ok(Channel::Data),
            1 => Ok(Channel::Gossip),
            _ => Err(WireError::Malformed("channel")),
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub boot: Boot,
    /// The run of its process.
    pub run: u64,
    /// The newest format that both speak.
    pub format: u16,
    /// What its dialer wants the connection for.
    pub channel: Channel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PacketKind {
    Hello,
    Proof,
    Refusal,
}

impl PacketKind {
    const fn code(self) -> u8 {
        match self {
            PacketKind::Hello => 1,
            PacketKind::Proof => 2,
            PacketKind::Refusal => 3,
        }
    }
}

/// How long the packet is that begins with `head`; at most [`PEER_HELLO_SIZE_MAX`] bytes.
pub fn packet_size(head: &[u8; PACKET_HEAD_SIZE]) -> Result<usize, HelloError> {
    if head[..4] != MAGIC {
        return Err(HelloError::WrongMagic);
    }
    let size = PACKET_HEAD_SIZE + usize::from(u16::from_le_bytes([head[5], head[6]])) + CRC_SIZE;
    if size > PEER_HELLO_SIZE_MAX { Err(HelloError::TooLarge) } else { Ok(size) }
}

fn packet(kind: PacketKind, body: &[u8]) -> Vec<u8> {
    assert!(PACKET_HEAD_SIZE + body.len() + CRC_SIZE <= PEER_HELLO_SIZE_MAX, "a packet is short");
    let mut out = Vec::with_capacity(PACKET_HEAD_SIZE + body.len() + CRC_SIZE);
    out.put(&MAGIC);
    out.put_u8(kind.code());
    out.put_u16(body.len() as u16);
    out.put(body);
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out
}

/// The body of a whole packet of the kind that is due.
fn body_of(due: PacketKind, packet: &[u8]) -> Result<&[u8], HelloError> {
    let head = packet.first_chunk().ok_or(WireError::Truncated)?;
    if packet.len() != packet_size(head)? {
        return Err(WireError::Truncated.into());
    }
    let (covered, crc) = packet.split_at(packet.len() - CRC_SIZE);
    if crc32fast::hash(covered).to_le_bytes() != crc {
        return Err(HelloError::BadChecksum);
    }
    let body = &covered[PACKET_HEAD_SIZE..];
    match head[4] {
        code if code == due.code() => Ok(body),
        code if code == PacketKind::Refusal.code() => {
            Err(HelloError::Refused(Refusal::of(Cursor::new(body).u8()?)))
        }
        _ => Err(HelloError::OutOfTurn),
    }
}

/// The packet that refuses.
pub fn refusal_packet(refusal: Refusal) -> Vec<u8> {
    packet(PacketKind::Refusal, &[refusal.code()])
}

/// The first word of either end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hello {
    format: u16,
    format_min: u16,
    cluster: ClusterId,
    node: NodeId,
    to: NodeId,
    boot: Boot,
    run: u64,
    nonce: [u8; 32],
    channel: Channel,
}

impl Hello {
    fn new(me: &Identity, to: NodeId, channel: Channel, nonce: [u8; 32]) -> Hello {
        let Identity { cluster, node, boot, run, .. } = *me;
        let (format, format_min) = (FORMAT, FORMAT_MIN);
        Hello { format, format_min, cluster, node, to, boot, run, nonce, channel }
    }

    fn packet(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        body.put_u16(self.format);
        body.put_u16(self.format_min);
        body.put_u64(self.cluster.0);
        body.put_u16(self.node.0);
        body.put_u16(self.to.0);
        body.put_u16(self.boot.0);
        body.put_u64(self.run);
        body.put(&self.nonce);
        body.put_u8(self.channel.code());
        packet(PacketKind::Hello, &body)
    }

    fn read(packet: &[u8]) -> Result<Hello, HelloError> {
        let mut at = Cursor::new(body_of(PacketKind::Hello, packet)?);
        let (format, format_min) = (at.u16()?, at.u16()?);
        if format < FORMAT_MIN {
            // Its hello may be shorter; all that counts of it has been read.
            return Err(HelloError::UnsupportedFormat { format, format_min });
        }
        let hello = Hello {
            format,
            format_min,
            cluster: ClusterId(at.u64()?),
            node: NodeId(at.u16()?),
            to: NodeId(at.u16()?),
            boot: Boot(at.u16()?),
            run: at.u64()?,
            nonce: at.take(32)?.try_into().expect("32 bytes were taken"),
            channel: Channel::of(at.u8()?)?,
        };
        // What a later format appends is under the proofs all the same; it is not for us.
        Ok(hello)
    }

    /// What both ends ask of the other's hello.
    fn check(&self, me: &Identity) -> Result<Remote, HelloError> {
        let format = self.format.min(FORMAT);
        if format < self.format_min.max(FORMAT_MIN) {
            let (format, format_min) = (self.format, self.format_min);
            return Err(HelloError::UnsupportedFormat { format, format_min });
        }
        if self.cluster != me.cluster {
            return Err(HelloError::WrongCluster);
        }
        if self.node == me.node {
            return Err(HelloError::SelfConnection);
        }
        if self.to != me.node {
            return Err(HelloError::UnknownNode(self.to));
        }
        let Hello { node, boot, run, channel, .. } = *self;
        Ok(Remote { node, boot, run, format, channel })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Dialer,
    Acceptor,
}

/// Both hellos as they were sent, and the key over them.
#[derive(Debug)]
struct Transcript {
    key: ProofKey,
    dialer: Vec<u8>,
    acceptor: Vec<u8>,
}

impl Transcript {
    /// The hellos carry their own lengths, so no two transcripts have the same bytes.
    fn hash(&self, role: Role, greeting: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(&[role as u8]);
        hasher.update(&self.dialer);
        hasher.update(&self.acceptor);
        hasher.update(greeting);
        hasher.finalize()
    }

    fn prove(&self, role: Role, greeting: &[u8]) -> Vec<u8> {
        assert!(greeting.len() <= GREETING_SIZE_MAX, "a greeting fits its packet");
        let mut body = self.hash(role, greeting).as_bytes().to_vec();
        body.put(greeting);
        packet(PacketKind::Proof, &body)
    }

    /// The greeting under a right proof.
    fn verify(&self, role: Role, packet: &[u8]) -> Result<Vec<u8>, HelloError> {
        let mut at = Cursor::new(body_of(PacketKind::Proof, packet)?);
        let proof: [u8; PROOF_SIZE] = at.take(PROOF_SIZE)?.try_into().expect("bytes were taken");
        let greeting = at.rest();
        // Hashes compare in constant time.
        if self.hash(role, greeting) != blake3::Hash::from_bytes(proof) {
            return Err(HelloError::WrongSecret);
        }
        Ok(greeting.to_vec())
    }
}

/// The dialing end, waiting for the other's hello.
#[derive(Debug)]
pub struct Dialer {
    me: Identity,
    to: NodeId,
    hello: Vec<u8>,
}

impl Dialer {
    /// Dials `to` for `channel`; `nonce` is fresh chance.
    pub fn new(me: &Identity, to: NodeId, channel: Channel, nonce: [u8; 32]) -> Dialer {
        Dialer { me: me.clone(), to, hello: Hello::new(me, to, channel, nonce).packet() }
    }

    /// The packet to send first.
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Takes the other's hello.
    pub fn on_hello(self, packet: &[u8]) -> Result<DialerProving, HelloError> {
        let hello = Hello::read(packet)?;
        let remote = hello.check(&self.me)?;
        if remote.node != self.to {
            return Err(HelloError::UnknownNode(remote.node));
        }
        let transcript =
            Transcript { key: self.me.key, dialer: self.hello, acceptor: packet.to_vec() };
        Ok(DialerProving { remote, transcript })
    }
}

/// The dialing end, waiting for the other's proof.
#[derive(Debug)]
pub struct DialerProving {
    remote: Remote,
    transcript: Transcript,
}

impl DialerProving {
    /// The packet to send second: our proof and greeting.
    pub fn proof(&self, greeting: &[u8]) -> Vec<u8> {
        self.transcript.prove(Role::Dialer, greeting)
    }

    /// Takes the other's proof: who it is, and its greeting.
    pub fn on_proof(self, packet: &[u8]) -> Result<(Remote, Vec<u8>), HelloError> {
        let greeting = self.transcript.verify(Role::Acceptor, packet)?;
        Ok((self.remote, greeting))
    }
}

/// The accepting end, waiting for the other's proof.
#[derive(Debug)]
pub struct Acceptor {
    remote: Remote,
    transcript: Transcript,
}

impl Acceptor {
    /// Takes the dialer's hello; `nonce` is fresh chance.
    pub fn on_hello(
        me: &Identity,
        is_member: impl FnOnce(NodeId) -> bool,
        nonce: [u8; 32],
        packet: &[u8],
    ) -> Result<Acceptor, HelloError> {
        let hello = Hello::read(packet)?;
        let remote = hello.check(me)?;
        if !is_member(remote.node) {
            return Err(HelloError::UnknownNode(remote.node));
        }
        if remote.channel == Channel::Data && remote.node > me.node {
            return Err(HelloError::WrongDirection);
        }
        let acceptor = Hello::new(me, remote.node, remote.channel, nonce).packet();
        let transcript = Transcript { key: me.key.clone(), dialer: packet.to_vec(), acceptor };
        Ok(Acceptor { remote, transcript })
    }

    /// The packet to send first.
    pub fn hello(&self) -> &[u8] {
        &self.transcript.acceptor
    }

    /// Takes the dialer's proof: who it is, and its greeting.
    pub fn on_proof(&self, packet: &[u8]) -> Result<(Remote, Vec<u8>), HelloError> {
        let greeting = self.transcript.verify(Role::Dialer, packet)?;
        Ok((self.remote, greeting))
    }

    /// The packet to send last: our proof and greeting. With it the link is up.
    pub fn proof(&self, greeting: &[u8]) -> Vec<u8> {
        self.transcript.prove(Role::Acceptor, greeting)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: u16, cluster: &str, secret: &str) -> Identity {
        Identity {
            cluster: ClusterId::of(cluster),
            node: NodeId(id),
            boot: Boot(id + 10),
            run: u64::from(id) + 100,
            key: ProofKey::of(secret.as_bytes()),
        }
    }

    fn pair() -> (Identity, Identity) {
        (node(1, "c", "s"), node(2, "c", "s"))
    }

    type Met = ((Remote, Vec<u8>), (Remote, Vec<u8>));

    /// A whole handshake; `on_wire` may change each of the four packets.
    fn meet(
        dialer: &Identity,
        acceptor: &Identity,
        mut on_wire: impl FnMut(usize, &mut Vec<u8>),
    ) -> Result<Met, HelloError> {
        let mut send = |turn, packet: &[u8]| {
            let mut packet = packet.to_vec();
            on_wire(turn, &mut packet);
            packet
        };
        let calling = Dialer::new(dialer, NodeId(2), Channel::Data, [1; 32]);
        let packet = send(0, calling.hello());
        let accepting = Acceptor::on_hello(acceptor, |id| id.0 < 10, [2; 32], &packet)?;
        let packet = send(1, accepting.hello());
        let proving = calling.on_hello(&packet)?;
        let packet = send(2, &proving.proof(b"from the dialer"));
        let heard = accepting.on_proof(&packet)?;
        let packet = send(3, &accepting.proof(b"from the acceptor"));
        Ok((heard, proving.on_proof(&packet)?))
    }

    #[test]
    fn two_nodes_of_one_cluster_meet() {
        let (one, two) = pair();
        let (heard, told) = meet(&one, &two, |_, _| ()).expect("they meet");
        let met = Remote { format: FORMAT, channel: Channel::Data, ..heard.0 };
        let one = Remote { node: NodeId(1), boot: Boot(11), run: 101, ..met };
        let two = Remote { node: NodeId(2), boot: Boot(12), run: 102, ..met };
        assert_eq!(heard, (one, b"from the dialer".to_vec()));
        assert_eq!(told, (two, b"from the acceptor".to_vec()));
    }

    #[test]
    fn gossip_may_be_dialed_by_the_higher_id() {
        let (one, two) = (node(3, "c", "s"), node(2, "c", "s"));
        let calling = Dialer::new(&one, NodeId(2), Channel::Gossip, [1; 32]);
        let met = Acceptor::on_hello(&two, |_| true, [2; 32], calling.hello()).expect("a hello");
        assert_eq!(met.remote.channel, Channel::Gossip);
        assert!(calling.on_hello(met.hello()).is_ok());
    }

    #[test]
    fn a_node_of_the_first_format_is_told_which_formats_there_are() {
        let (one, two) = pair();
        let mut hello = Hello::new(&one, two.node, Channel::Data, [0; 32]);
        (hello.format, hello.format_min) = (1, 1);
        let mut old = hello.packet()[PACKET_HEAD_SIZE..].to_vec();
        old.truncate(old.len() - CRC_SIZE - 1);
        let met = Acceptor::on_hello(&two, |_| true, [2; 32], &packet(PacketKind::Hello, &old));
        let error = HelloError::UnsupportedFormat { format: 1, format_min: 1 };
        assert_eq!(met.map(drop), Err(error));
    }

    #[test]
    fn strangers_are_named() {
        let (one, two) = pair();
        let no = |one: &Identity, two: &Identity| meet(one, two, |_, _| ()).expect_err("no link");
        assert_eq!(no(&node(1, "other", "s"), &two), HelloError::WrongCluster);
        assert_eq!(no(&node(1, "c", "guess"), &two), HelloError::WrongSecret);
        assert_eq!(no(&node(2, "c", "s"), &two), HelloError::SelfConnection);
        assert_eq!(no(&node(12, "c", "s"), &two), HelloError::UnknownNode(NodeId(12)));
        assert_eq!(no(&node(5, "c", "s"), &two), HelloError::WrongDirection);
        assert_eq!(no(&one, &node(3, "c", "s")), HelloError::UnknownNode(NodeId(2)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let (one, two) = pair();
        for turn in 0..4 {
            let mut len = 0;
            meet(&one, &two, |at, packet| {
                if at == turn {
                    len = packet.len()
                }
            })
            .expect("meets");
            for bit in 0..len * 8 {
                let flip = |at, packet: &mut Vec<u8>| {
                    if at == turn {
                        packet[bit / 8] ^= 1 << (bit % 8);
                    }
                };
                assert!(meet(&one, &two, flip).is_err(), "bit {bit} of packet {turn}");
            }
            for cut in 0..len {
                let cut = |at, packet: &mut Vec<u8>| {
                    if at == turn {
                        packet.truncate(cut);
                    }
                };
                assert!(meet(&one, &two, cut).is_err());
            }
        }
    }

    #[test]
    fn a_forged_greeting_under_a_right_checksum_is_a_wrong_proof() {
        let (one, two) = pair();
        let forge = |at, wire: &mut Vec<u8>| {
            if at == 2 {
                let mut body = wire[PACKET_HEAD_SIZE..wire.len() - CRC_SIZE].to_vec();
                *body.last_mut().expect("a greeting") ^= 1;
                *wire = packet(PacketKind::Proof, &body);
            }
        };
        assert_eq!(meet(&one, &two, forge).expect_err("forged"), HelloError::WrongSecret);
    }

    #[test]
    fn replayed_and_reflected_proofs_fail() {
        let (one, two) = pair();
        let mut recorded = Vec::new();
        meet(&one, &two, |_, packet| recorded.push(packet.clone())).expect("they meet");
        // Replay against a fresh nonce.
        let again = Acceptor::on_hello(&two, |_| true, [9; 32], &recorded[0]).expect("a hello");
        assert_eq!(again.on_proof(&recorded[2]), Err(HelloError::WrongSecret));
        // Reflection: the dialer's own proof comes back.
        let calling = Dialer::new(&one, NodeId(2), Channel::Data, [1; 32]);
        let proving = calling.on_hello(&recorded[1]).expect("a hello");
        let own = proving.proof(b"");
        assert_eq!(proving.on_proof(&own), Err(HelloError::WrongSecret));
    }

    #[test]
    fn a_refusal_is_heard_at_every_step() {
        let (one, _) = pair();
        for refusal in REFUSALS {
            let calling = Dialer::new(&one, NodeId(2), Channel::Data, [1; 32]);
            let heard = calling.on_hello(&refusal_packet(refusal)).expect_err("refused");
            assert_eq!(heard, HelloError::Refused(refusal));
        }
    }

    #[test]
    fn formats_meet_where_they_overlap() {
        let (one, two) = pair();
        let mut hello = Hello::new(&one, two.node, Channel::Data, [0; 32]);
        hello.format = 9;
        assert_eq!(hello.check(&two).map(|remote| remote.format), Ok(FORMAT));
        hello.format_min = 8;
        let error = HelloError::UnsupportedFormat { format: 9, format_min: 8 };
        assert_eq!(hello.check(&two), Err(error));
        (hello.format, hello.format_min) = (0, 0);
        assert!(hello.check(&two).is_err());
    }

    #[test]
    fn the_hello_is_frozen() {
        let me = Identity { run: 3, ..node(1, "c", "s") };
        let packet = Hello::new(&me, NodeId(2), Channel::Gossip, [7; 32]).packet();
        assert_eq!(packet[..11], [b'K', b'V', b'P', b'R', 1, 59, 0, 3, 0, 3, 0]);
        assert_eq!(packet[11..19], ClusterId::of("c").0.to_le_bytes());
        assert_eq!(packet[19..33], [1, 0, 2, 0, 11, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packet[33..65], [7; 32]);
        assert_eq!(packet[65], 1);
        assert_eq!(packet.len(), 70);
    }

    #[test]
    fn claims_over_the_limit_are_refused() {
        assert_eq!(packet_size(b"KVPR\x01\xFF\xFF"), Err(HelloError::TooLarge));
        assert_eq!(packet_size(b"GET / H"), Err(HelloError::WrongMagic));
    }

    proptest! {
        #[test]
        fn garbage_is_no_panic(garbage: Vec<u8>) {
            let (one, two) = pair();
            prop_assert!(Acceptor::on_hello(&two, |_| true, [0; 32], &garbage).is_err());
            prop_assert!(Dialer::new(&one, NodeId(2), Channel::Data, [1; 32]).on_hello(&garbage).is_err());
            for kind in [PacketKind::Hello, PacketKind::Proof, PacketKind::Refusal] {
                let packet = packet(kind, &garbage);
                prop_assert!(Dialer::new(&one, NodeId(2), Channel::Data, [1; 32]).on_hello(&packet).is_err());
            }
        }
    }
}
