//! What is known about one connection, and whether it waits for its client.

use std::sync::Mutex;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::State;
use crate::inflight::Counts;
use crate::lock::lock;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
pub(crate) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who reads the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Nothing is known about what is sent.
    Unknown,
    /// An HTTP server of another crate. Only the sum of its requests may be known.
    Http,
    /// `crate::serve`, which tells the connection about each of its requests.
    #[cfg_attr(not(feature = "serve-http1"), allow(dead_code))]
    Served,
}

#[derive(Debug)]
pub(crate) struct Connection {
    peer: String,
    protocol: Protocol,
    facts: Mutex<Facts>,
    /// Cancelled when the connection must be closed.
    pub(crate) cut: CancellationToken,
}

#[derive(Debug)]
struct Facts {
    received: u64,
    last_received: Instant,
    last_sent: Instant,
    /// How much of the HTTP/2 preface was received so far. `None` if other bytes were received.
    preface: Option<usize>,
    /// When the first byte arrived after our last byte was sent. `None` if none has arrived.
    unanswered_since: Option<Instant>,
    /// The client does not read: the socket took no more bytes.
    write_blocked: bool,
    is_upgraded: bool,
    /// Our side is closed. The client has a moment to close its own.
    is_closing: bool,
    requests: Requests,
}

/// The requests of a connection of `crate::serve`.
#[derive(Debug, Default, Clone, Copy)]
struct Requests {
    active: usize,
    /// How many of these are being sent their answers.
    answered: usize,
    /// How many handlers wait for the body of their request.
    reading: usize,
    /// When a handler began to wait for the body, or for the rest of it after a part has come.
    reading_since: Option<Instant>,
    /// How many began.
    begun: u64,
    /// How many heads of HTTP/1 requests were received completely.
    heads: u64,
    /// Whether a line of the next head was received.
    has_line: bool,
    /// Whether the current line has no bytes yet, other than a carriage return.
    is_line_empty: bool,
}

impl Facts {
    fn is_http2(&self) -> bool {
        self.preface == Some(HTTP2_PREFACE.len())
    }
}

impl Connection {
    pub(super) fn new(peer: String, protocol: Protocol) -> Self {
        let facts = Facts {
            received: 0,
            last_received: Instant::now(),
            last_sent: Instant::now(),
            preface: Some(0),
            unanswered_since: None,
            write_blocked: false,
            is_upgraded: false,
            is_closing: false,
            requests: Requests::default(),
        };
        Self { peer, protocol, facts: Mutex::new(facts), cut: CancellationToken::new() }
    }

    pub(super) fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut facts = lock(&self.facts);
        let facts = &mut *facts;
        facts.last_received = Instant::now();
        facts.unanswered_since.get_or_insert(facts.last_received);
        facts.received += bytes.len() as u64;
        if let Some(seen) = facts.preface.filter(|&seen| seen < HTTP2_PREFACE.len()) {
            let expected = &HTTP2_PREFACE[seen..];
            let new = bytes.len().min(expected.len());
            facts.preface = (bytes[..new] == expected[..new]).then_some(seen + new);
        }
        if self.protocol == Protocol::Served && !facts.is_http2() {
            facts.requests.count_heads(bytes);
        }
    }

    /// Bytes were sent, or the socket accepted none.
    pub(super) fn sent(&self, is_blocked: bool) {
        let mut facts = lock(&self.facts);
        facts.write_blocked = is_blocked;
        if !is_blocked {
            facts.last_sent = Instant::now();
            facts.unanswered_since = None;
        }
    }

    pub(super) fn state(&self, all: Option<Counts>) -> State {
        let facts = lock(&self.facts);
        let Requests { active, answered, reading, .. } = facts.requests;
        if facts.is_upgraded {
            return State::Upgraded;
        }
        let is_busy = match self.protocol {
            Protocol::Unknown => return State::Unknown,
            Protocol::Served if active > 0 && reading > 0 && answered == 0 => {
                return State::ReadingBody;
            }
            Protocol::Served => active > 0 || facts.write_blocked,
            Protocol::Http if facts.received == 0 => false,
            Protocol::Http if facts.write_blocked => true,
            // A request of this connection or of another one.
            Protocol::Http if all.is_none_or(|all| all.active > 0) => return State::Unknown,
            Protocol::Http => false,
        };
        if is_busy {
            State::Responding
        } else if facts.unanswered_since.is_some() && !facts.is_http2() {
            State::ReadingHead
        } else {
            State::Idle
        }
    }

    /// What the connection waits for, as text.
    pub(super) fn describe(&self, all: Option<Counts>) -> String {
        let state = self.state(all);
        let (peer, facts) = (&self.peer, lock(&self.facts));
        match state {
            _ if facts.is_closing => format!("closed by us, and not yet by {peer}"),
            State::Idle if facts.received == 0 => format!("no request from {peer}"),
            State::Idle if facts.received <= HTTP2_PREFACE.len() as u64 && facts.is_http2() => {
                format!("HTTP/2 preface without a request from {peer}")
            }
            State::Idle => format!("idle connection from {peer}"),
            State::ReadingHead => format!("incomplete request from {peer}"),
            State::ReadingBody => format!("incomplete request body from {peer}"),
            State::Responding if facts.write_blocked => format!("answer that {peer} does not read"),
            State::Responding if facts.requests.active > facts.requests.answered => {
                format!("request in progress from {peer}")
            }
            State::Responding => format!("answer being sent to {peer}"),
            State::Upgraded => format!("upgraded connection from {peer}"),
            State::Unknown => format!("connection from {peer}"),
        }
    }

    /// Since when the connection has waited for its client. `None` if it does not, or if that is not
    /// known. `began` is when the drain began.
    pub(super) fn waits_for_client_since(
        &self,
        began: Instant,
        all: Option<Counts>,
    ) -> Option<Instant> {
        let facts = lock(&self.facts);
        let since = |at: Instant| Some(at.max(began));
        let bare = facts.preface.is_some() && facts.received <= HTTP2_PREFACE.len() as u64;
        let (active, answered) = match self.protocol {
            _ if facts.is_upgraded => return None,
            Protocol::Unknown => return None,
            Protocol::Served => (facts.requests.active, facts.requests.answered),
            // Nothing, or nothing but the preface, was received. There can be no request.
            Protocol::Http if bare => (0, 0),
            Protocol::Http => all.map(|all| (all.active, all.answered))?,
        };
        if facts.is_http2() {
            // The server has sent a PING at the beginning of the drain, which every client answers.
            let is_silent = facts.last_received < began;
            let Requests { reading, reading_since, .. } = facts.requests;
            let by_handler = active > answered && reading == 0;
            return match active {
                0 => since(facts.last_received),
                // Every request waits for its body. A PING says nothing about that.
                _ if reading == active && answered == 0 => {
                    since(reading_since.map_or(facts.last_sent, |at| at.max(facts.last_sent)))
                }
                _ if is_silent && !by_handler => Some(began),
                _ => None,
            };
        }
        match active {
            0 if facts.write_blocked => None,
            // The limit is for the whole head, so that a client cannot send it byte by byte.
            // Without a part of a head, it counts from the last byte in either direction: a client that
            // was just answered needs time to end the connection.
            0 => {
                let last = facts.last_received.max(facts.last_sent);
                since(facts.unanswered_since.unwrap_or(last))
            }
            _ if facts.requests.reading > 0 && answered == 0 => since(facts.last_received),
            _ => None,
        }
    }
}

#[cfg(feature = "serve-http1")]
impl Connection {
    pub(crate) fn is_upgraded(&self) -> bool {
        lock(&self.facts).is_upgraded
    }

    pub(crate) fn set_closing(&self) {
        lock(&self.facts).is_closing = true;
    }

    pub(crate) fn request_begun(&self) {
        let requests = &mut lock(&self.facts).requests;
        requests.active += 1;
        requests.begun += 1;
    }

    pub(crate) fn request_answered(&self, upgrades: bool) {
        let mut facts = lock(&self.facts);
        facts.requests.answered += 1;
        facts.is_upgraded |= upgrades;
    }

    pub(crate) fn request_ended(&self, was_answered: bool) {
        let requests = &mut lock(&self.facts).requests;
        requests.active -= 1;
        requests.answered -= usize::from(was_answered);
    }

    /// A handler began or ceased to wait for the body of its request.
    pub(crate) fn set_reading_body(&self, reads: bool) {
        let requests = &mut lock(&self.facts).requests;
        if reads {
            requests.reading += 1;
            requests.reading_since = Some(Instant::now());
        } else {
            requests.reading -= 1;
        }
    }

    /// Whether the client has already sent the head of another HTTP/1 request (pipelining).
    pub(crate) fn has_next_request(&self) -> bool {
        let facts = lock(&self.facts);
        facts.requests.heads > facts.requests.begun
    }
}

impl Requests {
    /// Counts the empty lines, which end the heads. A body can contain empty lines, too. So the count
    /// begins again when the server reads between two requests, because then it has no further
    /// request in its buffer.
    fn count_heads(&mut self, bytes: &[u8]) {
        if self.active == 0 {
            self.heads = self.begun;
        }
        // The servers accept lines without a carriage return, and empty lines before a request.
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    self.heads += u64::from(self.is_line_empty && self.has_line);
                    self.has_line &= !self.is_line_empty;
                    self.is_line_empty = true;
                }
                _ => (self.has_line, self.is_line_empty) = (true, false),
            }
        }
    }
}

#[cfg(all(test, feature = "serve-http1"))]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[test]
    fn the_heads_are_counted_with_every_kind_of_line_end_and_in_any_pieces() {
        for (received, expected) in [
            ("", 0),
            ("GET / HTTP/1.1\r\n", 0),
            ("GET / HTTP/1.1\r\n\r\n", 1),
            ("GET / HTTP/1.1\n\n", 1),
            ("GET / HTTP/1.1\n\r\n", 1),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\n\n", 2),
            ("\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n\r\n", 1),
        ] {
            for size in 1..=received.len().max(1) {
                let mut requests = Requests { active: 1, ..Requests::default() };
                received.as_bytes().chunks(size).for_each(|bytes| requests.count_heads(bytes));
                assert_eq!(requests.heads, expected, "{received:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_silent_before_its_answer_has_ended() {
        let connection = Connection::new("peer".to_owned(), Protocol::Served);
        let began = Instant::now();
        connection.received(b"GET / HTTP/1.1\r\n\r\n");
        connection.request_begun();
        assert_eq!(connection.waits_for_client_since(began, None), None);
        advance(Duration::from_secs(5)).await;
        connection.request_answered(false);
        connection.sent(false);
        connection.request_ended(true);
        assert_eq!(connection.waits_for_client_since(began, None), Some(Instant::now()));
        // The beginning of another request counts from its first byte.
        advance(Duration::from_secs(1)).await;
        connection.received(b"GET");
        let first_byte = Instant::now();
        advance(Duration::from_secs(1)).await;
        connection.received(b" /");
        assert_eq!(connection.waits_for_client_since(began, None), Some(first_byte));
    }
}
