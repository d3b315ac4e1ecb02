//! Node-to-node frames and links.
//!
//! Bottom up: [`message`] is what is said, [`frame`] how it lies on the wire, [`hello`] how two
//! nodes prove who they are, [`stream`] what outlives a link and [`paced`] how fast it is made up for,
//! [`outbox`] what waits to be sent, [`inbox`] what the node gives to be told of arrivals,
//! [`reader`] and [`writer`] the two halves of one connection, [`seat`] the place
//! that one peer's link takes, and [`link`] all of them together. [`gossip_link`] is a second, smaller
//! connection in each direction, for heartbeats alone.

pub mod counters;
pub mod frame;
pub mod gossip_link;
pub mod handshake;
pub mod hello;
pub mod inbox;
pub mod link;
pub mod message;
pub mod options;
pub mod outbox;
pub mod own;
pub mod paced;
pub mod reader;
pub mod seat;
pub mod state;
pub mod stream;
pub mod writer;
