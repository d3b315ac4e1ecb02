//! What this node says of itself in every handshake, whichever channel it is for.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::base::id::{Boot, NodeId};

use super::hello::{ClusterId, Identity, ProofKey};
use super::options::Options;

/// Numbers that nobody can foresee and that never come twice: a keyed hash of a count, under a
/// key from the system's chance.
struct Nonces {
    key: [u8; 32],
    count: AtomicU64,
}

impl Nonces {
    fn new() -> io::Result<Nonces> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Nonces { key, count: AtomicU64::new(0) })
    }

    fn next(&self) -> [u8; 32] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        *blake3::keyed_hash(&self.key, &count.to_le_bytes()).as_bytes()
    }
}

/// This node's identity, which may begin a new life, and its nonces.
pub struct Own {
    identity: Identity,
    boot: AtomicU16,
    nonces: Nonces,
}

impl Own {
    /// Who the node of `options` is, in a run of its process that gets a random number.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(options: &Options) -> io::Result<Own> {
        let nonces = Nonces::new()?;
        let [a, b, c, d, e, f, g, h, ..] = nonces.next();
        let identity = Identity {
            cluster: ClusterId::of(&options.cluster),
            node: options.node,
            boot: options.boot,
            run: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            key: ProofKey::of(&options.secret.0),
        };
        Ok(Own { boot: AtomicU16::new(options.boot.0), identity, nonces })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    /// Its identity in the life it lives now.
    pub fn identity(&self) -> Identity {
        Identity { boot: Boot(self.boot.load(Ordering::Acquire)), ..self.identity.clone() }
    }

    /// It begins a new life.
    pub fn set_boot(&self, boot: Boot) {
        self.boot.store(boot.0, Ordering::Release);
    }

    /// Chance for one handshake.
    pub fn nonce(&self) -> [u8; 32] {
        self.nonces.next()
    }
}
