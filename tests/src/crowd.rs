//! Many concurrent clients of different kinds, and the sum of their results.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::client::{Account, Client, Fate};

/// How a client sends its requests.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// A new connection for every request.
    NewConnection,
    /// One connection, and the next request as soon as there is an answer.
    Busy,
    /// One connection, and a pause before each request, so that it is often idle.
    Pausing,
}

/// Clients. Each sends one request after another until it is refused or told to leave.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<JoinHandle<Account>>,
    answered: Arc<AtomicU64>,
    leave: Arc<AtomicBool>,
}

impl Crowd {
    /// Starts `of_each_habit` clients of each kind. Every fourth request of each is a slow one.
    pub fn start(address: &str, of_each_habit: usize) -> Self {
        Self::start_with(address, of_each_habit, 4)
    }

    /// The same, without slow requests.
    pub fn start_quick(address: &str, of_each_habit: usize) -> Self {
        Self::start_with(address, of_each_habit, u64::MAX)
    }

    fn start_with(address: &str, of_each_habit: usize, slow_of: u64) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let leave = Arc::new(AtomicBool::new(false));
        let habits = [Habit::NewConnection, Habit::Busy, Habit::Pausing];
        let clients = habits.into_iter().flat_map(|habit| {
            let (answered, leave) = (answered.clone(), leave.clone());
            (0..of_each_habit).map(move |_| {
                let (client, answered, leave) =
                    (Client::new(address), answered.clone(), leave.clone());
                thread::spawn(move || run_client(client, habit, slow_of, &answered, &leave))
            })
        });
        Self { clients: clients.collect(), answered, leave }
    }

    /// Waits until `more` further requests have been answered.
    ///
    /// # Panics
    /// If that takes longer than [`LIMIT`].
    pub fn wait_for_answers(&self, more: u64) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        let end = Instant::now() + LIMIT;
        while self.answered.load(Ordering::Relaxed) < enough {
            assert!(Instant::now() < end, "not {more} answers in {LIMIT:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until every client has been refused.
    ///
    /// # Panics
    /// If a client panics.
    pub fn refused(self) -> Account {
        let mut all = Account::default();
        for client in self.clients {
            all.add(client.join().expect("a client does not panic"));
        }
        all
    }

    /// Lets every client finish its request and end.
    ///
    /// # Panics
    /// If a client panics.
    pub fn leave(self) -> Account {
        self.leave.store(true, Ordering::Relaxed);
        self.refused()
    }
}

fn run_client(
    mut client: Client,
    habit: Habit,
    slow_of: u64,
    answered: &AtomicU64,
    leave: &AtomicBool,
) -> Account {
    let run = RandomState::new();
    for nth in 0_u64.. {
        let random = run.hash_one(nth);
        if leave.load(Ordering::Relaxed) {
            break;
        }
        match habit {
            Habit::NewConnection => client.disconnect(),
            Habit::Busy => {}
            // Not for synchronisation: the pauses are the load. Some are longer than the gateway's
            // last call.
            Habit::Pausing => thread::sleep(Duration::from_millis(random % 250)),
        }
        let slow = (nth % slow_of == slow_of - 1).then_some(((random >> 32) % 80) as u32);
        match client.ask(slow) {
            Fate::Answered => drop(answered.fetch_add(1, Ordering::Relaxed)),
            Fate::Refused => break,
            Fate::TurnedAway | Fate::Lost(_) => {}
        }
    }
    client.account
}
