//! How many senders that exit at once are not named, and what the short time slice costs.
//!
//! Each trial starts a service with a guard at its default settings and stops it with `/bin/kill`,
//! which this process waits for at once, as a shell does. The context line must name it correctly
//! or not at all. Trials without and with load alternate. With load, six clients on the loopback
//! interface send requests to the service as fast as it answers.
//!
//! For the cost of the short slice on a current-thread runtime, the bench compares how many
//! requests of six clients two services answer, one of them with `low_latency_capture`, in
//! alternating trials.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use forensics_tokio::ShutdownGuard;
use measure::median;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TRIALS: usize = 500;
const CLIENTS: usize = 6;
/// How many requests a service must have answered before it is stopped.
const WARM: u64 = 200;
/// How long an idle service has been running when it is stopped.
const SETTLED: Duration = Duration::from_millis(10);
/// How often the throughput is measured, and how long each time.
const THROUGHPUT_TRIALS: usize = 8;
const THROUGHPUT_TIME: Duration = Duration::from_secs(1);
/// If a service takes longer than this to answer, the bench fails.
const LIMIT: Duration = Duration::from_secs(30);

const REQUEST: [u8; 64] = [b'r'; 64];
const RESPONSE: [u8; 256] = [b'a'; 256];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut multi = tokio::runtime::Builder::new_multi_thread();
    let mut single = tokio::runtime::Builder::new_current_thread();
    let serve = |runtime: &mut tokio::runtime::Builder, low_latency| {
        runtime.enable_all().build()?.block_on(serve(low_latency))
    };
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(&mut multi, None),
        ["serve", "current-thread"] => serve(&mut single, None),
        ["serve", "current-thread", "low-latency"] => serve(&mut single, Some(true)),
        // For example cargo's `--bench`.
        _ => conduct(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("senders bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(low_latency: Option<bool>) -> Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let mut builder = ShutdownGuard::builder("bench");
    if let Some(low_latency) = low_latency {
        builder = builder.low_latency_capture(low_latency);
    }
    let guard = builder.install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("port {}", listener.local_addr()?.port());
    let token = guard.token();
    let accept = async move {
        while let Some(Ok((mut client, _))) = token.run_until_cancelled(listener.accept()).await {
            tokio::spawn(async move {
                let mut request = REQUEST;
                while client.read_exact(&mut request).await.is_ok()
                    && client.write_all(&RESPONSE).await.is_ok()
                {}
            });
        }
    };
    let _ = guard.run(accept).await;
    Ok(())
}

/// Six threads that send requests to the service of the trial.
struct Clients {
    /// The service's port, 0 for none.
    port: Mutex<u16>,
    changed: Condvar,
    answered: AtomicU64,
}

static CLIENTS_STATE: Clients =
    Clients { port: Mutex::new(0), changed: Condvar::new(), answered: AtomicU64::new(0) };

impl Clients {
    /// The threads end with this process.
    fn start(&'static self) {
        for _ in 0..CLIENTS {
            thread::spawn(|| {
                loop {
                    let port = self.await_service();
                    // An error means that the service is stopping: wait for the next one.
                    let _ = self.request(port);
                    self.stop(port);
                }
            });
        }
    }

    fn await_service(&self) -> u16 {
        let port = self.changed.wait_while(self.port(), |port| *port == 0);
        *port.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends requests to the service on this port until it closes the connection.
    fn request(&self, port: u16) -> std::io::Result<()> {
        let mut service = TcpStream::connect(("127.0.0.1", port))?;
        service.set_nodelay(true)?;
        let mut response = RESPONSE;
        loop {
            service.write_all(&REQUEST)?;
            service.read_exact(&mut response)?;
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn port(&self) -> MutexGuard<'_, u16> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_to(&self, port: u16) {
        *self.port() = port;
        self.changed.notify_all();
    }

    /// Sends no more requests to the service on this port.
    fn stop(&self, port: u16) {
        let mut current = self.port();
        if *current == port {
            *current = 0;
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for `count` more answers.
    fn await_answers(&self, count: u64) -> Result<()> {
        let (begin, until) = (Instant::now(), self.answered() + count);
        while self.answered() < until {
            if begin.elapsed() > LIMIT {
                return Err("the service does not answer".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A service that was started for one trial.
struct Service {
    process: Child,
    log: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Service {
    fn start(how: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args(how)
            .stdout(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(process.stdout.take().ok_or("no pipe")?).lines();
        let mut service = Self { process, log, port: 0 };
        service.port = service.next("port ")?.parse()?;
        Ok(service)
    }

    /// The rest of the next line after `begin`.
    fn next(&mut self, begin: &str) -> Result<String> {
        for line in &mut self.log {
            if let Some((_, rest)) = line?.split_once(begin) {
                return Ok(rest.to_owned());
            }
        }
        Err("the service has ended".into())
    }

    /// Stops it with `/bin/kill`.
    fn stop(mut self) -> Result<Sender> {
        let mut sender = Command::new("/bin/kill").arg(self.process.id().to_string()).spawn()?;
        let pid = sender.id().to_string();
        if !sender.wait()?.success() {
            return Err("kill failed".into());
        }
        let line = self.next("Shutdown context: ")?;
        // Reads the rest of the log, so that the service never writes to a closed pipe.
        self.log.by_ref().for_each(drop);
        self.process.wait()?;
        let field = |key| line.split(' ').find_map(|field| field.strip_prefix(key)).unwrap_or("?");
        Ok(match field("sender_name=") {
            _ if field("sender_pid=") != pid => Sender::Misnamed(line),
            "kill" => Sender::Named,
            "?" => Sender::Unnamed,
            _ => Sender::Misnamed(line),
        })
    }
}

/// What the context line says about a sender.
enum Sender {
    Named,
    Unnamed,
    Misnamed(String),
}

#[derive(Default)]
struct Count {
    unnamed: usize,
    misnamed: usize,
}

impl Count {
    fn add(&mut self, sender: Sender) {
        match sender {
            Sender::Named => {}
            Sender::Unnamed => self.unnamed += 1,
            Sender::Misnamed(line) => {
                eprintln!("misnamed: {line}");
                self.misnamed += 1;
            }
        }
    }
}

/// How many requests a second a service answers.
fn throughput(how: &[&str]) -> Result<u64> {
    let clients = &CLIENTS_STATE;
    let service = Service::start(how)?;
    clients.send_to(service.port);
    clients.await_answers(WARM)?;
    let (begin, before) = (Instant::now(), clients.answered());
    thread::sleep(THROUGHPUT_TIME);
    let answered = clients.answered() - before;
    let rate = answered as f64 / begin.elapsed().as_secs_f64();
    service.stop()?;
    Ok(rate as u64)
}

fn conduct() -> Result<()> {
    let clients = &CLIENTS_STATE;
    clients.start();
    let (mut idle, mut serving) = (Count::default(), Count::default());
    for _ in 0..TRIALS {
        let service = Service::start(&[])?;
        thread::sleep(SETTLED);
        idle.add(service.stop()?);

        let service = Service::start(&[])?;
        clients.send_to(service.port);
        clients.await_answers(WARM)?;
        serving.add(service.stop()?);
    }
    measure::title("Senders that exit at once (`cargo bench -p forensics-tokio --bench senders`)");
    let of = format!("of {TRIALS} times `/bin/kill`");
    for (host, count) in [("idle", idle), ("serving six clients", serving)] {
        let percent = count.unnamed as f64 * 100.0 / TRIALS as f64;
        measure::row(&format!("senders unnamed, {host}"), &of, "", percent, 4.0, " %");
        let misnamed = count.misnamed as f64;
        measure::row(&format!("senders misnamed, {host}"), &of, "", misnamed, 0.0, "");
    }

    let (mut usual, mut short) = (Vec::new(), Vec::new());
    for _ in 0..THROUGHPUT_TRIALS {
        usual.push(throughput(&["current-thread"])?);
        short.push(throughput(&["current-thread", "low-latency"])?);
    }
    let (usual, short) = (median(&usual), median(&short));
    measure::report(
        "requests a second, current-thread runtime with `low_latency_capture`",
        &format!("{short:.0}"),
        &format!("without: {usual:.0}"),
        short / usual,
        "×",
    );
    Ok(())
}
