//! The process that loads a file from several threads, and says each commit when it has returned.
//!
//! What it says: `opening`; `checking` and `replaying` while it recovers; `start <thread> <number>` for each thread
//! whose newest batch it finds, and `open`; then `ack <thread> <number> <op>`, and `checkpoint` and `checkpointed` around
//! checkpoints that it asks for; at last, if it lives so long, `closing` and `closed`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use understory::{Batch, Database, Options, Recovery};

use crate::child::{Running, command, role, say};
use crate::load;

/// What a loader does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) small: bool,
    pub(crate) seed: u64,
    pub(crate) threads: u16,
    /// For so long it commits, then it closes.
    pub(crate) milliseconds: u64,
}

pub(crate) fn options(small: bool) -> Options {
    if small { load::small() } else { Options::default() }
}

/// Starts a loader in a process of its own.
pub(crate) fn start(path: &Path, plan: &Plan) -> Running {
    let Plan { small, seed, threads, milliseconds } = plan;
    let role = format!("{small} {seed} {threads} {milliseconds} {}", path.display());
    Running::start(command(&[], "loader::loads_a_file", &role))
}

#[test]
#[ignore = "it is started by other tests"]
fn loads_a_file() {
    let Some(role) = role() else { return };
    let words: Vec<&str> = role.splitn(5, ' ').collect();
    let plan = Plan {
        small: words[0] == "true",
        seed: words[1].parse().unwrap(),
        threads: words[2].parse().unwrap(),
        milliseconds: words[3].parse().unwrap(),
    };
    run(Path::new(words[4]), &plan);
}

fn run(path: &Path, plan: &Plan) {
    say("opening");
    let options = options(plan.small).on_recovery(|progress| match progress {
        Recovery::Checking { .. } => say("checking"),
        Recovery::Replaying { .. } => say("replaying"),
        _ => {}
    });
    let opened = if path.exists() { Database::open } else { Database::create };
    let database = opened(path, &load::schema(), &options).unwrap();
    let heads = load::heads(&database).unwrap();
    heads.iter().for_each(|(thread, number)| say(&format!("start {thread} {number}")));
    say("open");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let first = heads.get(&thread).copied().unwrap_or(0) + 1;
            let (database, stop) = (&database, &stop);
            scope.spawn(move || commit(database, thread, first, stop));
        }
        checkpoint(&database, plan);
        stop.store(true, Ordering::Relaxed);
    });
    say("closing");
    database.close().unwrap();
    say("closed");
}

fn commit(database: &Database, thread: u16, first: u64, stop: &AtomicBool) {
    let mut batch = Batch::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        load::fill(&mut batch, database.geometry(), thread, number);
        let op = database.commit_with(&batch, load::durability(thread, number)).unwrap();
        say(&format!("ack {thread} {number} {op}", op = op.get()));
    }
}

/// Takes checkpoints now and then, beside those that are scheduled.
fn checkpoint(database: &Database, plan: &Plan) {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let end = Instant::now() + Duration::from_millis(plan.milliseconds);
    loop {
        let pause = Duration::from_millis(rng.u64(1..=plan.milliseconds.clamp(2, 400)));
        std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        if Instant::now() >= end {
            break;
        }
        say("checkpoint");
        database.checkpoint().unwrap();
        say("checkpointed");
    }
}
