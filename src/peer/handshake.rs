//! The handshake on a socket: reads and sends the packets of [`super::hello`].
//!
//! Nothing here waits on its own clock: the caller puts the whole handshake under one deadline.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::base::id::NodeId;

use super::hello::{
    self, Acceptor, Channel, Dialer, HelloError, Identity, PACKET_HEAD_SIZE, Remote,
};

/// Shakes hands as the one who dialed `to` for `channel`: who is there, and its greeting.
pub async fn dial(
    socket: &mut TcpStream,
    me: &Identity,
    to: NodeId,
    channel: Channel,
    nonce: [u8; 32],
    greeting: &[u8],
) -> Result<(Remote, Vec<u8>), HelloError> {
    let dialer = Dialer::new(me, to, channel, nonce);
    send(socket, dialer.hello()).await?;
    let proving = dialer.on_hello(&receive(socket).await?)?;
    send(socket, &proving.proof(greeting)).await?;
    proving.on_proof(&receive(socket).await?)
}

/// A dialer that has proved itself and now waits for our proof.
#[derive(Debug)]
pub struct Proved {
    acceptor: Acceptor,
    /// Who dialed.
    pub remote: Remote,
    /// Its greeting.
    pub greeting: Vec<u8>,
}

/// Hears out whoever connected, up to its proof.
pub async fn hear(
    socket: &mut TcpStream,
    me: &Identity,
    is_member: impl FnOnce(NodeId) -> bool,
    nonce: [u8; 32],
) -> Result<Proved, HelloError> {
    let packet = receive(socket).await?;
    let acceptor = Acceptor::on_hello(me, is_member, nonce, &packet)?;
    send(socket, acceptor.hello()).await?;
    let (remote, greeting) = acceptor.on_proof(&receive(socket).await?)?;
    Ok(Proved { acceptor, remote, greeting })
}

impl Proved {
    /// Proves this node in turn; then the link is up.
    pub async fn accept(&self, socket: &mut TcpStream, greeting: &[u8]) -> Result<(), HelloError> {
        send(socket, &self.acceptor.proof(greeting)).await
    }
}

/// Tells the other end why, if it would understand. Whether it hears is its own luck.
pub async fn refuse(socket: &mut TcpStream, error: &HelloError) {
    if let Some(refusal) = error.refusal() {
        let _ = send(socket, &hello::refusal_packet(refusal)).await;
    }
}

async fn send(socket: &mut TcpStream, packet: &[u8]) -> Result<(), HelloError> {
    socket.write_all(packet).await.map_err(|error| HelloError::Io(error.kind()))
}

async fn receive(socket: &mut TcpStream) -> Result<Vec<u8>, HelloError> {
    let broken = |error: std::io::Error| HelloError::Io(error.kind());
    let mut head = [0; PACKET_HEAD_SIZE];
    socket.read_exact(&mut head).await.map_err(broken)?;
    let mut packet = head.to_vec();
    packet.resize(hello::packet_size(&head)?, 0);
    socket.read_exact(&mut packet[PACKET_HEAD_SIZE..]).await.map_err(broken)?;
    Ok(packet)
}
