//! A pool of sqlx, closed last, when no request needs it any more. The database is a file of SQLite.
//!
//! ```sh
//! cargo run -p forensics-example-sqlx --example sqlx -- /tmp/transfers.db
//! curl -X POST http://127.0.0.1:PORT/transfer    # takes half a second; press Ctrl-C meanwhile
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use forensics_tokio::connections::Connections;
use forensics_tokio::serve::{self, serve};
use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic, logging};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    logging::init();
    let file = std::env::args_os().nth(1).ok_or("usage: sqlx FILE")?;
    let guard = ShutdownGuard::builder("sqlx").install()?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS entry (amount INTEGER)").execute(&pool).await?;
    let listener = serve::Listener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);

    let connections = Connections::new();
    guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());
    // `close()` waits until each connection of the pool is returned. The reserve gives it time, even if the
    // drain takes too long.
    let closing = pool.clone();
    guard
        .phase("db_close", async move |cx| {
            cx.record("connections", closing.size());
            closing.close().await;
        })
        .reserve(Duration::from_secs(5));

    let app =
        Router::new().route("/", get(entries)).route("/transfer", post(transfer)).with_state(pool);
    let server = serve(listener, app, &connections, guard.token());
    Ok(guard.run(server).await)
}

/// Two entries in one transaction, half a second apart.
async fn transfer(State(pool): State<SqlitePool>) -> Result<&'static str, Failed> {
    let mut transaction = pool.begin().await?;
    for amount in [-5, 5] {
        let insert = sqlx::query("INSERT INTO entry VALUES (?)").bind(amount);
        insert.execute(&mut *transaction).await?;
        sleep(Duration::from_millis(250)).await;
    }
    transaction.commit().await?;
    Ok("transferred\n")
}

async fn entries(State(pool): State<SqlitePool>) -> Result<String, Failed> {
    let query = sqlx::query_as("SELECT count(*), coalesce(sum(amount), 0) FROM entry");
    let (entries, sum): (i64, i64) = query.fetch_one(&pool).await?;
    Ok(format!("{entries} entries, sum {sum}\n"))
}

/// An error of the database, as an answer.
struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", self.0)).into_response()
    }
}
