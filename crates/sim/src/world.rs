//! A file and everything that is known of it while handles come and go.
//!
//! # Not here
//! What handles do: `life`, `opening`. What a seed makes of it: `story`.

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use understory::{Database, Error, Machine, Options};
use understory_io::{Executor, InlineExecutor, SimExecutor, SimOptions, SimStorage};

use crate::book::Book;
use crate::fault::{Target, Trigger};
use crate::handle::Tally;
use crate::harm::Harm;
use crate::scenario::Scenario;
use crate::tap::Tap;
use crate::trace::{Trace, Violation};
use crate::watch::Watch;
use crate::zone::Zones;

/// What messages call the file.
pub(crate) const PATH: &str = "simulated";

/// Steps of a simulation in which a life is over, or hangs.
const STEPS_MAX: u64 = 3_000_000;

/// Everything of a file that outlives its handles.
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) rng: Rng,
    pub(crate) image: Vec<u8>,
    /// Whether making the file was acknowledged.
    pub(crate) is_made: bool,
    pub(crate) book: Mutex<Book>,
    pub(crate) watch: Arc<Mutex<Watch>>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) tally: Arc<Tally>,
    /// Damage that nothing has repaired.
    pub(crate) harm: Harm,
    /// Nothing opens the file any more, which is explained.
    pub(crate) is_lost: bool,
    /// The copy of the superblock that faults may befall.
    pub(crate) copy: u8,
    pub(crate) memory: u64,
    pub(crate) steps: u64,
    /// The operations of the last machine, as faults count them.
    pub(crate) operations: Vec<Target>,
}

/// A machine and its parts.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) storage: Arc<SimStorage>,
    pub(crate) tap: Arc<Tap>,
}

impl Rig {
    /// A machine over these bytes, with whatever `tap` makes of the storage.
    pub(crate) fn new(image: Vec<u8>, seed: u64, tap: impl FnOnce(Arc<SimStorage>) -> Tap) -> Self {
        let options = SimOptions { allow_overlap: true, ..SimOptions::seeded(seed) };
        let storage = Arc::new(SimStorage::from_image(image, options));
        storage.scheduler().set_step_max(Some(STEPS_MAX));
        let tap = Arc::new(tap(Arc::clone(&storage)));
        let machine = Machine { storage: Arc::<Tap>::clone(&tap), ..storage.machine() };
        Self { machine, storage, tap }
    }

    /// The same with these workers.
    pub(crate) fn with_executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.machine.executor = executor;
        self
    }
}

impl<'a> World<'a> {
    /// No file yet.
    pub(crate) fn new(
        scenario: &'a Scenario,
        mut rng: Rng,
        trace: &Arc<Trace>,
        tally: &Arc<Tally>,
    ) -> Result<Self, Violation> {
        Ok(Self {
            copy: rng.u8(0..4),
            rng,
            image: Vec::new(),
            is_made: false,
            book: Mutex::new(Book::new(&scenario.plots, scenario.client_count)),
            watch: Arc::new(Mutex::new(Watch::new(&scenario.geometry))),
            trace: Arc::clone(trace),
            tally: Arc::clone(tally),
            harm: Harm::new(&scenario.geometry),
            is_lost: false,
            memory: least_memory(scenario)? + scenario.memory_spare,
            steps: 0,
            operations: Vec::new(),
            scenario,
        })
    }

    /// What the database is opened with.
    pub(crate) fn options(&self) -> Options {
        let options = Options::default().memory(self.memory);
        self.scenario.size_limit.into_iter().fold(options, Options::size_limit)
    }

    /// A machine over the file, with these faults to come.
    pub(crate) fn rig(&mut self, triggers: Vec<Trigger>) -> Rig {
        let image = std::mem::take(&mut self.image);
        let mut harm = self.harm.that_lasts();
        harm.was_full = self.scenario.size_limit.is_some();
        let seed = self.rng.u64(..);
        let rig = Rig::new(image, seed, |storage| {
            let zones = Zones::new(&self.scenario.geometry);
            let (trace, watch) = (Arc::clone(&self.trace), Arc::clone(&self.watch));
            Tap::new(storage, zones, triggers, self.copy, harm, trace, watch).with_seed(seed)
        });
        rig.storage.scheduler().set_preempt_percent(self.rng.u32(0..40));
        match self.rng.u8(0..4) {
            0 => rig.with_executor(Arc::new(InlineExecutor)),
            1 => rig,
            _ => {
                let executor = SimExecutor::new(rig.storage.scheduler(), 1);
                rig.with_executor(Arc::new(executor))
            }
        }
    }

    /// The machine is gone: keeps what is on the file, and what is known of damage.
    pub(crate) fn put_away(&mut self, rig: Rig) {
        rig.storage.scheduler().shut_down();
        self.image = rig.storage.image();
        self.steps += rig.storage.scheduler().steps();
        let harm = rig.tap.harm();
        self.harm = harm.that_lasts();
        for (what, times) in rig.tap.events() {
            self.tally.add(what, times);
        }
        self.operations = rig.tap.take_targets();
        self.tally.add("storage operations", rig.storage.operations());
        self.trace.note(&[rig.storage.scheduler().trace_hash()], || "the machine is gone".to_owned());
    }
}

/// The least memory that the scenario's file can be opened with.
fn least_memory(scenario: &Scenario) -> Result<u64, Violation> {
    let (machine, _storage) = Machine::sim(0);
    let options = Options::default().memory(1);
    let made = Database::format(&machine, Path::new(PATH), &scenario.schema(), &scenario.geometry, &options);
    match made {
        Err(Error::MemoryTooSmall { needed, .. }) => Ok(needed),
        other => Err(Violation::new(format!("one byte of memory: {other:?}"))),
    }
}
