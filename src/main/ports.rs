//! Free ports for nodes on this machine.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};

use kvorum::config::value::peer_port_of;

/// The client ports found, and those that were passed by.
#[derive(Debug)]
pub(crate) struct Ports {
    /// One for each node; its peer port is free too.
    pub(crate) free: Vec<u16>,
    /// Ports that somebody listens on, in the order of trying.
    pub(crate) taken: Vec<u16>,
}

/// There are not enough free ports from the first on.
#[derive(Debug)]
pub(crate) struct PortsError {
    first: u16,
    wanted: usize,
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortsError { first, wanted } = self;
        write!(
            f,
            "there are no {wanted} free ports from {first} on, each with its peer port \
             (+ 10000, up to 65535): choose a lower --port"
        )
    }
}

/// The next `wanted` client ports from `first` whose peer ports are free as well. A port may be
/// taken between this look and its use; the node then says so.
pub(crate) fn free_ports(first: u16, wanted: usize) -> Result<Ports, PortsError> {
    let mut ports = Ports { free: Vec::new(), taken: Vec::new() };
    for client in first..=u16::MAX {
        if ports.free.len() == wanted {
            break;
        }
        let Ok(peer) = peer_port_of(client) else { break };
        let busy = [client, peer].into_iter().find(|&port| !is_free(port));
        match busy {
            None => ports.free.push(client),
            Some(port) => ports.taken.push(port),
        }
    }
    if ports.free.len() < wanted { Err(PortsError { first, wanted }) } else { Ok(ports) }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_passed_by_and_named() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        // The ephemeral ports of Linux begin at 32,768: this one has room for a peer port, or
        // is itself the peer port of one.
        let first = port.saturating_sub(10_000);
        let ports = free_ports(first, 1).unwrap();
        // Either is named: somebody else may hold the client port that belongs to it.
        assert!(ports.taken.contains(&port) || ports.taken.contains(&first));
        assert!(!ports.free.contains(&first));
    }

    #[test]
    fn ports_end() {
        assert!(free_ports(55_535, 2).is_err());
        assert!(free_ports(60_000, 1).is_err());
    }
}
