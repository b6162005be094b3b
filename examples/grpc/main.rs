//! gRPC with tonic. The calls stream until the client or the server ends them. A graceful shutdown
//! of the server waits for all calls, and would wait for these forever. So a phase before the drain
//! asks them to end, and cuts those that do not. The drain closes the connections of silent clients.
//!
//! ```sh
//! cargo run -p forensics-example-grpc --example grpc    # the server; prints its address
//! cargo run -p forensics-example-grpc --example grpc -- watch http://127.0.0.1:PORT
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::connections::Connections;
use forensics_tokio::streams::Streams;
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The code that `build.rs` generates.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod ticker {
    include!(concat!(env!("OUT_DIR"), "/ticker.Ticker.rs"));
}

use ticker::ticker_client::TickerClient;
use ticker::ticker_server::{Ticker, TickerServer};

/// The request for ticks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {}

/// One message of the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tick {
    /// Counts from 0.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Whether the server ends the call after it.
    #[prost(bool, tag = "2")]
    pub last: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(serve().await?.exit_code()),
        (Some("watch"), Some(address)) => watch(address).await,
        _ => Err("usage: grpc [watch ADDRESS]".into()),
    }
}

async fn serve() -> Result<ShutdownReport, Box<dyn Error>> {
    let guard = ShutdownGuard::builder("grpc").install()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    let calls = Streams::new();
    let (told, goodbye) = (calls.clone(), calls.goodbye_phase(Duration::from_secs(2)));
    guard.phase("goodbye", async move |cx| {
        cx.record("calls_told", told.count());
        goodbye(cx).await;
    });
    let connections = Connections::new();
    guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());

    let server = tonic::transport::Server::builder()
        .layer(connections.http_layer())
        .add_service(TickerServer::new(Calls(calls)))
        .serve_with_incoming_shutdown(
            connections.listener(listener),
            guard.token().cancelled_owned(),
        );
    Ok(guard.run(server).await)
}

/// The service, and its running calls.
#[derive(Clone)]
struct Calls(Streams);

#[tonic::async_trait]
impl Ticker for Calls {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Tick, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (say, hear) = mpsc::channel(1);
        tokio::spawn(self.0.run(async move |goodbye| {
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            for number in 0.. {
                tokio::select! {
                    _ = beat.tick() => {}
                    () = goodbye.cancelled() => {}
                }
                let last = goodbye.is_cancelled();
                // An error means that the client has left.
                if say.send(Ok(Tick { number, last })).await.is_err() || last {
                    return;
                }
            }
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(hear))))
    }
}

/// The client: prints the ticks until the server ends the call.
async fn watch(address: String) -> Result<ExitCode, Box<dyn Error>> {
    let mut client = TickerClient::connect(address).await?;
    let mut ticks = client.watch(WatchRequest {}).await?.into_inner();
    while let Some(Tick { number, last }) = ticks.message().await? {
        println!("tick {number}{}", if last { ", goodbye" } else { "" });
    }
    println!("ended well");
    Ok(ExitCode::SUCCESS)
}
