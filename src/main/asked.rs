//! A connection to a node on which one request at a time is asked, for the tools of the command
//! line.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kvorum::resp::decode::decode;
use kvorum::resp::nested::Nested;
use kvorum::resp::reply::Protocol;

/// How long the node may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest reply that is read.
const REPLY_SIZE_MAX: usize = 1 << 20;

/// The connection.
pub(crate) struct Asked(TcpStream);

impl Asked {
    /// Connects, and gives the password of `KVORUM_REQUIREPASS` if there is one.
    ///
    /// # Errors
    /// Nobody answers there, or the password is not taken.
    pub(crate) fn connect(host: &str, port: u16) -> io::Result<Asked> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut node = Asked(stream);
        if let Ok(password) = std::env::var("KVORUM_REQUIREPASS") {
            node.ask(&["AUTH", &password])?;
        }
        Ok(node)
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The connection broke, or the answer is an error.
    pub(crate) fn ask(&mut self, words: &[&str]) -> io::Result<Nested> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        self.0.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        while reply.len() < REPLY_SIZE_MAX {
            let mut bytes = [0; 4_096];
            let read = self.0.read(&mut bytes)?;
            if read == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed"));
            }
            reply.extend_from_slice(&bytes[..read]);
            match decode(&reply, Protocol::Resp2).map_err(io::Error::other)? {
                Some((Nested::Error(text), _)) => {
                    return Err(io::Error::other(String::from_utf8_lossy(&text).into_owned()));
                }
                Some((reply, _)) => return Ok(reply),
                None => {}
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the answer does not end"))
    }
}
