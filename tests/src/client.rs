//! An HTTP client that knows the result of each of its requests.
//!
//! A load generator counts answers and errors. If a connection ends without an answer, it cannot
//! say whether the server had received the request. This client asks the kernel how much of the
//! request was acknowledged. So much has arrived in the server's socket.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::LIMIT;
use crate::acknowledged::acknowledged;

/// How long a kernel may delay an acknowledgement (`TCP_DELACK_MAX`), plus a margin.
const PUT_OFF: Duration = Duration::from_millis(250);

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Answered completely, with 200 and the expected content.
    Answered,
    /// The connection was refused.
    Refused,
    /// The connection ended, and not one byte of the request had been acknowledged.
    TurnedAway,
    /// None of these. Says what happened.
    Lost(String),
}

/// The results of all requests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    /// How many were [`Fate::Answered`].
    pub answered: u64,
    /// How many of these were slow requests.
    pub slow: u64,
    /// How many of these had an answer with `Connection: close`.
    pub last_ones: u64,
    /// How many were [`Fate::Refused`].
    pub refused: u64,
    /// How many were [`Fate::TurnedAway`].
    pub turned_away: u64,
    /// How many idle connections were found closed before anything was sent on them.
    pub closed_idle: u64,
    /// Those that were [`Fate::Lost`].
    pub lost: Vec<String>,
}

impl Account {
    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.answered + self.refused + self.turned_away + self.lost.len() as u64
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: Account) {
        self.answered += other.answered;
        self.slow += other.slow;
        self.last_ones += other.last_ones;
        self.refused += other.refused;
        self.turned_away += other.turned_away;
        self.closed_idle += other.closed_idle;
        self.lost.extend(other.lost);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, slow, last_ones, refused, turned_away, closed_idle, lost } = self;
        write!(
            f,
            "requests={} answered={answered} slow={slow} last_ones={last_ones} refused={refused} \
             turned_away={turned_away} closed_idle={closed_idle} lost={}",
            self.requests(),
            lost.len()
        )
    }
}

/// One client, with one connection at a time.
#[derive(Debug)]
pub struct Client {
    address: String,
    /// The connection that the server's last answer kept open.
    connection: Option<TcpStream>,
    /// The results of its requests so far.
    pub account: Account,
}

impl Client {
    /// A client of the server at `address`, not connected yet.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), connection: None, account: Account::default() }
    }

    /// Closes the open connection, if there is one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Sends a request that the gateway answers after `ms` milliseconds, or at once, and counts the
    /// result. Uses the open connection if there is one.
    pub fn ask(&mut self, ms: Option<u32>) -> Fate {
        let fate = match self.connected() {
            Ok(stream) => self.ask_on(stream, ms),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Fate::Refused,
            // The listener was closed during the handshake.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Fate::TurnedAway,
            Err(e) => Fate::Lost(format!("not connected: {e}")),
        };
        match &fate {
            Fate::Answered => self.account.answered += 1,
            Fate::Refused => self.account.refused += 1,
            Fate::TurnedAway => self.account.turned_away += 1,
            Fate::Lost(what) => self.account.lost.push(what.clone()),
        }
        self.account.slow += u64::from(fate == Fate::Answered && ms.is_some());
        fate
    }

    /// Sends a request on the open connection, without a check whether the server has closed it.
    ///
    /// # Panics
    /// If no connection is open.
    pub fn ask_without_check(&mut self) -> Fate {
        let stream = self.connection.take().expect("a connection is open");
        self.ask_on(stream, None)
    }

    /// Waits until the server has closed its side of the open connection.
    ///
    /// # Panics
    /// If no connection is open.
    pub fn wait_for_the_end(&mut self) {
        let stream = self.connection.as_ref().expect("a connection is open");
        let peeked = stream.peek(&mut [0]);
        assert!(matches!(peeked, Ok(0)), "{peeked:?}");
    }

    fn connected(&mut self) -> io::Result<TcpStream> {
        // Like every client that keeps connections, it does not use one that the server has closed.
        if let Some(stream) = self.connection.take() {
            stream.set_nonblocking(true)?;
            let open = stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            stream.set_nonblocking(false)?;
            if open {
                return Ok(stream);
            }
            self.account.closed_idle += 1;
        }
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn ask_on(&mut self, mut stream: TcpStream, ms: Option<u32>) -> Fate {
        let (path, expected) = match ms {
            None => ("/".to_owned(), "ok\n".to_owned()),
            Some(ms) => (format!("/slow?ms={ms}"), format!("slept {ms} ms\n")),
        };
        let before = acknowledged(&stream);
        let sent = write!(&stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
        let mut answer = Answer::default();
        let ended = sent.and_then(|()| answer.read(&mut stream));
        if let Some(last) = answer.is_whole(&expected) {
            self.account.last_ones += u64::from(last);
            self.connection = (!last).then_some(stream);
            return Fate::Answered;
        }
        thread::sleep(PUT_OFF);
        match (before, acknowledged(&stream)) {
            (Ok(before), Ok(after)) if before == after && answer.0.is_empty() => Fate::TurnedAway,
            (before, after) => Fate::Lost(format!(
                "GET {path}: {ended:?} after {:?}; acknowledged {before:?} before, {after:?} after",
                String::from_utf8_lossy(&answer.0)
            )),
        }
    }
}

/// Opens `requests` connections, and sends a request on each that is answered after `ms`. Returns
/// once all are accepted: the gateway accepts in order, and has answered a later request, whose
/// connection is the last one returned.
///
/// # Panics
/// If there is no server.
pub fn in_flight(address: &str, requests: usize, ms: u32) -> Vec<TcpStream> {
    let ask = |ms: u32| {
        let mut stream = TcpStream::connect(address).expect("it connects");
        write!(stream, "GET /slow?ms={ms} HTTP/1.1\r\nHost: gateway\r\n\r\n").expect("it is sent");
        stream
    };
    let mut streams: Vec<_> = (0..requests).map(|_| ask(ms)).collect();
    let mut quick = ask(0);
    quick.read_exact(&mut [0; 12]).expect("it is answered");
    streams.push(quick);
    streams
}

/// The bytes of an answer that have arrived.
#[derive(Debug, Default)]
struct Answer(Vec<u8>);

impl Answer {
    /// Reads until it is complete, or the connection ends.
    fn read(&mut self, stream: &mut impl Read) -> io::Result<()> {
        let mut piece = [0; 4096];
        while self.parts().is_none() {
            match stream.read(&mut piece)? {
                0 => break,
                read => self.0.extend_from_slice(&piece[..read]),
            }
        }
        Ok(())
    }

    /// The head and the body, once both are complete.
    fn parts(&self) -> Option<(String, &[u8])> {
        let end = self.0.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.0[..end]).to_ascii_lowercase();
        let body = &self.0[end + 4..];
        let (_, length) = head.split_once("\r\ncontent-length: ")?;
        let length: usize = length.lines().next()?.parse().ok()?;
        (body.len() >= length).then_some((head, body))
    }

    /// If this is a complete 200 with exactly this body: whether it has the header `Connection:
    /// close`.
    fn is_whole(&self, expected: &str) -> Option<bool> {
        let (head, body) = self.parts()?;
        let well = head.starts_with("http/1.1 200 ") && body == expected.as_bytes();
        well.then(|| head.contains("\r\nconnection: close"))
    }
}
