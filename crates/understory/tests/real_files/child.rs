//! This program once more, as another process that runs one test in another role.
//!
//! A test that is run so is told by an environment variable, and says what it does in lines on its standard output
//! that begin with `@`. A line is written by one call and so arrives whole, also from a process that is killed.
//! Lines that were written before that are read after it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ROLE: &str = "UNDERSTORY_TEST_ROLE";

/// What the test that runs was started for; none if it was not started by another one.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The arguments that run one test of this program.
fn arguments(test: &str) -> [&str; 6] {
    ["--exact", test, "--include-ignored", "--nocapture", "--quiet", "--test-threads=1"]
}

/// A command that runs `test` of this program in a role, behind the `wrapper` commands if there are any.
pub(crate) fn command(wrapper: &[&str], test: &str, role: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    let words = wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut words = words.chain(arguments(test).map(OsStr::new));
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env(ROLE, role).stdin(Stdio::null());
    command
}

/// Says something to the process that started this one. Waits for it to listen.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody listens");
}

/// Says that what was to be tested cannot be, here; also if the output of tests is captured.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("UNDERSTORY_SKIP_NOTHING").is_none(), "{test} cannot be run here: {reason}");
    let line = format!("SKIPPED {test}: {reason}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).expect("somebody listens");
}

/// A running child, whose lines are read all the time.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: std::thread::JoinHandle<String>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: std::process::ExitStatus,
    /// Lines that were not taken before.
    pub(crate) lines: Vec<String>,
    pub(crate) errors: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|size| size > 0) {
                if let Some(said) = line.strip_prefix('@').and_then(|line| line.strip_suffix('\n')) {
                    // Nobody may be interested any more.
                    let _unheard = send.send(said.to_owned());
                }
                line.clear();
            }
        });
        let mut err = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, errors }
    }

    /// The next line that is said before `deadline`; none if it comes to that, or the child says no more.
    pub(crate) fn line(&self, deadline: Instant) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits until it has ended.
    pub(crate) fn end(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let lines = self.lines.iter().collect();
        Ended { status, lines, errors: self.errors.join().unwrap() }
    }
}

impl Ended {
    /// Asserts that nothing failed in it.
    pub(crate) fn succeeded(self) -> Vec<String> {
        assert!(self.status.success(), "{} after {:?}: {}", self.status, self.lines, self.errors);
        self.lines
    }
}

/// How long a child may take to say something before that counts as a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
