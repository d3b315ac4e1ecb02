//! A link between two nodes that a test can cut: a small TCP relay with a switch.
//!
//! Each node is told the address of a relay instead of its peer's own, one relay for each
//! direction of dialling, so a split is made without privileges and at an exact moment: when
//! [`Link::cut`] returns, nothing written by either end afterwards arrives, and dialling is
//! refused, until [`Link::heal`].

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often the relay looks at its switch and its listener.
const PULSE: Duration = Duration::from_millis(3);

#[derive(Debug)]
struct Switch {
    /// What the test wants.
    open: AtomicBool,
    /// What is so: a listener exists and streams may live.
    listening: AtomicBool,
    over: AtomicBool,
}

/// A relay from `address` to wherever it was told.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    switch: Arc<Switch>,
}

impl Link {
    /// A relay on `address`, which must be free, to `target`, which need not be up yet.
    pub(crate) fn open(address: SocketAddr, target: SocketAddr) -> Link {
        let switch = Arc::new(Switch {
            open: AtomicBool::new(true),
            listening: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let link = Link { address, switch: Arc::clone(&switch) };
        thread::spawn(move || relay(address, target, &switch));
        link
    }

    /// Ends every connection, loses what is on its way, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.switch.open.store(false, Ordering::SeqCst);
        while self.switch.listening.load(Ordering::SeqCst) {
            thread::sleep(PULSE);
        }
    }

    /// Lets connections through again.
    pub(crate) fn heal(&self) {
        self.switch.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.switch.over.store(true, Ordering::SeqCst);
    }
}

fn relay(address: SocketAddr, target: SocketAddr, switch: &Switch) {
    let mut listener: Option<TcpListener> = None;
    let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    while !switch.over.load(Ordering::SeqCst) {
        if !switch.open.load(Ordering::SeqCst) {
            listener = None;
            end(&streams);
            switch.listening.store(false, Ordering::SeqCst);
        } else if let Some(listener) = &listener {
            // One look for every connection that waits, then a rest.
            while let Ok((from, _)) = listener.accept() {
                let _ = join(from, target, &streams);
            }
        } else if let Ok(fresh) = TcpListener::bind(address) {
            fresh.set_nonblocking(true).expect("a listener can be told not to wait");
            switch.listening.store(true, Ordering::SeqCst);
            listener = Some(fresh);
        }
        thread::sleep(PULSE);
    }
    end(&streams);
}

fn end(streams: &Mutex<Vec<TcpStream>>) {
    for stream in streams.lock().expect("no relay panics").drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn join(from: TcpStream, target: SocketAddr, streams: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    from.set_nonblocking(false)?;
    let to = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    streams.lock().expect("no relay panics").extend([from.try_clone()?, to.try_clone()?]);
    let (back_from, back_to) = (to.try_clone()?, from.try_clone()?);
    thread::spawn(move || pump(from, to));
    thread::spawn(move || pump(back_from, back_to));
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_and_healed() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let link = Link::open(free, target.local_addr().unwrap());
        let dial = || {
            (0..200).find_map(|_| {
                thread::sleep(PULSE);
                TcpStream::connect(link.address).ok()
            })
        };
        let talk = |mut near: TcpStream| {
            let (mut far, _) = target.accept().unwrap();
            near.write_all(b"ping").unwrap();
            let mut word = [0; 4];
            far.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"ping");
            (near, far)
        };
        let (mut near, mut far) = talk(dial().unwrap());
        link.cut();
        let _ = near.write_all(b"lost");
        assert_eq!(far.read(&mut [0; 4]).unwrap(), 0);
        assert!(TcpStream::connect(link.address).is_err());
        link.heal();
        talk(dial().unwrap());
    }
}
