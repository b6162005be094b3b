//! The table of docs/connections.md: what a stop does to each kind of client. Real clients of the
//! examples `streams` and `grpc`.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tests::{Ended, LIMIT, Program, example, until_read};

/// A server before its stop, and when it was asked to stop.
struct Server {
    program: Program,
    address: String,
    stopped: Option<Instant>,
}

impl Server {
    fn start(name: &str) -> Self {
        let program = Program::start(&mut Command::new(example(name)));
        let line = program.wait_for_stdout("listening on ");
        let address = line.rsplit('/').next().unwrap().to_owned();
        Self { program, address, stopped: None }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// A new connection on which this was sent.
    fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).unwrap();
        stream
    }

    /// Stops it, once it has read everything.
    fn stop(&mut self) {
        until_read(&self.address);
        self.stopped = Some(Instant::now());
        self.program.kill("-TERM");
        self.program.wait_for_stderr("Teardown started");
    }

    /// Stops it while its client does not run.
    fn stop_during_stop_of(&mut self, client: Program) -> String {
        client.kill("-STOP");
        self.stopped = Some(Instant::now());
        self.program.kill("-TERM");
        self.program.wait_for_stderr("phase finished phase=drain");
        let got = self.ended();
        client.kill("-KILL");
        client.wait();
        got
    }

    /// Waits until the server closes the connection, without another byte.
    fn end(&self, mut stream: TcpStream) -> String {
        let mut rest = Vec::new();
        // The server may reset a connection that it gives up.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "");
        self.ended()
    }

    /// Waits until the server closes the connection. It sends its settings, a PING and a GOAWAY.
    fn end_of_http2(&self, mut stream: TcpStream) -> String {
        let _ = stream.read_to_end(&mut Vec::new());
        self.ended()
    }

    fn ended(&self) -> String {
        let after = self.stopped.unwrap().elapsed();
        // A busy machine is late, but never early. The drain would take 30 s.
        match after.as_millis() {
            200..1500 => "the end of the connection after 0.2 s".to_owned(),
            2900..15_000 => "the end of the connection after 3 s".to_owned(),
            _ => format!("the end of the connection after {after:?}"),
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Reads until the end of the stream.
fn rest(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// Reads until the text was received.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

fn answer(text: &str, body: &str) -> String {
    let (head, said) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(head.contains("connection: close"), "{text}");
    assert_eq!(said, body);
    "its answer".to_owned()
}

fn websocket(server: &Server) -> TcpStream {
    let mut stream = server.send(
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// A frame of a client. The mask is zero, so the text is sent as it is (RFC 6455, section 5.2).
fn frame(operation: u8, text: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(text.len()).unwrap();
    [&[0x80 | operation, length, 0, 0, 0, 0], text].concat()
}

/// The next frame of the server, as text.
fn next_frame(stream: &mut TcpStream) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut text = vec![0; usize::from(head[1])];
    stream.read_exact(&mut text).unwrap();
    match head[0] {
        0x81 => format!("the answer to {}", String::from_utf8(text).unwrap()),
        0x88 => format!("a close frame with code {}", u16::from_be_bytes([text[0], text[1]])),
        other => panic!("{other:x}: {text:?}"),
    }
}

/// Answers a close frame, as a client must.
fn close(mut stream: TcpStream) {
    stream.write_all(&frame(8, &1001_u16.to_be_bytes())).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

const UPLOAD: &str = "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345";

/// The preface, empty settings, the head of `POST /upload`, and one byte of its body (RFC 9113, RFC 7541).
const HTTP2_UPLOAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x0e\x01\x04\0\0\0\x01\x83\x86\x04\x07/upload\x41\x01h\0\0\x01\0\0\0\0\0\x01x";

type Row = (&'static str, &'static str, fn(&mut Server) -> String);

/// The client, the example, and what the client gets.
const ROWS: &[Row] = &[
    ("an idle WebSocket", "streams", |server| {
        let mut client = websocket(server);
        server.stop();
        let got = next_frame(&mut client);
        close(client);
        got
    }),
    ("a WebSocket whose message is being worked on", "streams", |server| {
        let mut client = websocket(server);
        client.write_all(&frame(1, b"hello")).unwrap();
        server.stop();
        let got = format!("{}, then {}", next_frame(&mut client), next_frame(&mut client));
        close(client);
        got
    }),
    ("a WebSocket that does not answer the close frame", "streams", |server| {
        let mut client = websocket(server);
        server.stop();
        let got = next_frame(&mut client);
        let _ = client.read_to_end(&mut Vec::new());
        format!("{got}, and {}", server.ended())
    }),
    ("half a request head", "streams", |server| {
        let client = server.send("GET / HT");
        server.stop();
        server.end(client)
    }),
    ("half a request head, completed within a second", "streams", |server| {
        let mut client = server.send("GET / HT");
        server.stop();
        thread::sleep(Duration::from_secs(1));
        client.write_all(b"TP/1.1\r\nHost: h\r\n\r\n").unwrap();
        answer(&rest(client), "ok\n")
    }),
    ("a request head that comes byte by byte", "streams", |server| {
        let mut client = server.send("GET / HTTP/1.1\r\nX: ");
        server.stop();
        while client.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
        server.ended()
    }),
    ("half a request body", "streams", |server| {
        let client = server.send(UPLOAD);
        server.stop();
        let got = rest(client);
        let (status, _) = got.split_once("\r\n").unwrap();
        format!("{}, then {}", status.replace("HTTP/1.1", "the answer"), server.ended())
    }),
    ("half a request body, completed within a second", "streams", |server| {
        let mut client = server.send(UPLOAD);
        server.stop();
        thread::sleep(Duration::from_secs(1));
        client.write_all(b"67890").unwrap();
        answer(&rest(client), "got 10 bytes\n")
    }),
    ("a connection without a request", "streams", |server| {
        let client = server.connect();
        server.stop();
        server.end(client)
    }),
    ("an idle connection that was used before", "streams", |server| {
        let mut client = server.send(get("/"));
        read_until(&mut client, "ok\n");
        server.stop();
        server.end(client)
    }),
    ("a request in progress", "streams", |server| {
        let client = server.send(get("/"));
        server.stop();
        answer(&rest(client), "ok\n")
    }),
    ("a slow reader", "streams", |server| {
        let mut client = server.connect();
        client.write_all(get("/big").as_bytes()).unwrap();
        // The answer has begun.
        read_until(&mut client, "HTTP/1.1 200 OK");
        server.stop();
        // It is longer silent than the limit for clients that are waited for.
        thread::sleep(Duration::from_secs(4));
        let got = rest(client).len();
        assert!(got > 20 << 20, "{got}");
        "the whole answer".to_owned()
    }),
    ("four pipelined requests", "streams", |server| {
        let client = server.send(get("/").repeat(4));
        server.stop();
        let got = rest(client);
        let last = got.rfind("HTTP/1.1").unwrap();
        assert!(!got[..last].contains("connection: close"), "{got}");
        assert!(got[last..].contains("connection: close"), "{got}");
        format!("{} answers", got.matches("\r\n\r\nok\n").count())
    }),
    ("server-sent events", "streams", |server| {
        let mut client = server.send(get("/sse"));
        read_until(&mut client, "data: tick");
        server.stop();
        assert!(rest(client).ends_with("data: goodbye\n\n\r\n0\r\n\r\n"));
        "the event `goodbye`, then the end".to_owned()
    }),
    ("a long poll", "streams", |server| {
        let client = server.send(get("/poll"));
        server.stop();
        let got = rest(client);
        let (status, _) = got.split_once("\r\n").unwrap();
        status.replace("HTTP/1.1", "the answer")
    }),
    ("a bare HTTP/2 preface", "streams", bare_preface),
    ("half a request body by HTTP/2, of a client that answers the PING", "streams", |server| {
        let mut client = server.send(HTTP2_UPLOAD);
        server.stop();
        // An answer to the PING that hyper sends at a graceful shutdown.
        client.write_all(b"\0\0\x08\x06\x01\0\0\0\0\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54").unwrap();
        server.end_of_http2(client)
    }),
    ("an HTTP/2 client that is stopped (SIGSTOP) while it receives events", "streams", |server| {
        let url = format!("http://{}/sse", server.address);
        let mut curl = Command::new("curl");
        let client = Program::start(curl.args(["--http2-prior-knowledge", "-sN", &url]));
        client.wait_for_stdout("data: tick");
        server.stop_during_stop_of(client)
    }),
    ("a silent gRPC connection", "grpc", |server| {
        let client = server.connect();
        server.stop();
        server.end_of_http2(client)
    }),
    ("a bare HTTP/2 preface, to tonic", "grpc", bare_preface),
    ("a gRPC client that is stopped (SIGSTOP) during a call", "grpc", |server| {
        let address = format!("http://{}", server.address);
        let client = Program::start(Command::new(example("grpc")).args(["watch", &address]));
        client.wait_for_stdout("tick 1");
        server.stop_during_stop_of(client)
    }),
];

fn bare_preface(server: &mut Server) -> String {
    let client = server.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    server.stop();
    server.end_of_http2(client)
}

/// What the drain waited for, without the client's address. The log and the record have it.
fn reason(ended: &Ended) -> Option<String> {
    let line = ended.stderr.lines().find(|line| line.contains("phase waits"))?;
    let (_, said) = line.split_once("waits_for=\"").unwrap();
    let (said, _) = said.split_once('"').unwrap();
    let words = said.split(' ').filter(|word| !word.starts_with("127.0.0.1:"));
    Some(words.collect::<Vec<_>>().join(" "))
}

/// The rows of the table: the client, what it gets, and what the log says.
fn documented() -> Vec<[String; 3]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/connections.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| client |")).skip(2);
    rows.map_while(|line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        Some(cells.map(|cell| cell.trim_matches('`').to_owned()).collect::<Vec<_>>())
    })
    .map(|cells| cells.try_into().unwrap())
    .collect()
}

#[test]
fn each_client_gets_what_the_table_says() {
    let documented = documented();
    let named: Vec<_> = documented.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(named, ROWS.iter().map(|row| row.0).collect::<Vec<_>>());
    // They wait for the clock most of the time.
    let tests: Vec<_> = ROWS
        .iter()
        .zip(documented)
        .map(|(&(client, name, act), [_, gets, says])| {
            let mut server = Server::start(name);
            thread::Builder::new()
                .name(client.to_owned())
                .spawn(move || {
                    let got = act(&mut server);
                    let ended = server.program.wait();
                    let log = &ended.stderr;
                    assert_eq!(got, gets, "{client}\n{log}");
                    assert_eq!(ended.code(), 0, "{client}\n{log}");
                    assert!(ended.line("phase finished phase=drain").contains("outcome=ok"));
                    // If it takes less than a second, nothing need be said.
                    if says != "-" {
                        assert_eq!(reason(&ended), Some(says), "{client}\n{log}");
                    }
                })
                .unwrap()
        })
        .collect();
    let failed: Vec<_> = tests.into_iter().filter_map(|test| test.join().err()).collect();
    assert!(failed.is_empty(), "{} rows differ", failed.len());
}

#[test]
fn a_request_of_http2_in_progress_is_answered() {
    let mut server = Server::start("streams");
    let url = format!("http://{}/", server.address);
    let mut curl = Command::new("curl");
    let curl =
        Program::start(curl.args(["--http2-prior-knowledge", "-sv", "--max-time", "60", &url]));
    curl.wait_for_stderr("> GET / HTTP/2");
    server.stop();
    let got = curl.wait();
    assert_eq!((got.code(), got.stdout.as_str()), (0, "ok\n"), "{}", got.stderr);
    assert_eq!(server.program.wait().code(), 0);
}
