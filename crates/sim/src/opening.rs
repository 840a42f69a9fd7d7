//! Making and opening the file of a story, and what may be found in it.
//!
//! # Invariants
//! - Opening twice gives the same (some lives do).
//! - What open refuses because of damage it refuses again, and without faults anything else opens.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use understory::{Database, Error};

use crate::fault::Trigger;
use crate::harm::Harm;
use crate::inspect::inspect;
use crate::trace::Violation;
use crate::verdict::{self, Closed};
use crate::watch::Watch;
use crate::world::{PATH, Rig, World};

/// What is counted when an opening found less than was durable, as may be with damage in the ring.
pub(crate) const TORN: &str = "open: the last group counts as torn";

impl World<'_> {
    /// Makes the file if there is none, and opens it; `None` if the machine crashed meanwhile, or nothing can open it.
    pub(crate) fn open(&mut self, triggers: Vec<Trigger>) -> Result<Option<(Rig, Database)>, Violation> {
        if !self.is_made {
            self.clear()?;
        }
        let rig = self.rig(triggers);
        if !self.is_made && !self.make(&rig)? {
            self.put_away(rig);
            return Ok(None);
        }
        match self.open_on(&rig) {
            Ok(database) => Ok(Some((rig, database))),
            Err(error) => {
                self.trace.note(&[7], || format!("open: {error}"));
                let closed = verdict::of_open(&error, &rig.tap.harm());
                self.put_away(rig);
                match closed? {
                    Closed::Crashed => {
                        self.tally.count("open: crashed");
                        Ok(None)
                    }
                    Closed::Again | Closed::Damaged { .. } | Closed::Lost(_) => self.open_again(),
                }
            }
        }
    }

    /// Opens the file of this machine for writing.
    fn open_on(&self, rig: &Rig) -> Result<Database, Error> {
        let (schema, options) = (self.scenario.schema(), self.options());
        Database::open_machine(rig.machine.clone(), Path::new(PATH), &schema, &options, false)
    }

    /// Opens without faults what could not be opened with them.
    fn open_again(&mut self) -> Result<Option<(Rig, Database)>, Violation> {
        let rig = self.rig(Vec::new());
        let opened = self.open_on(&rig);
        let error = match opened {
            Ok(database) => {
                self.tally.count("open: at the second try");
                return Ok(Some((rig, database)));
            }
            Err(error) => error,
        };
        self.trace.note(&[8], || format!("open without faults: {error}"));
        let closed = verdict::of_open(&error, &rig.tap.harm());
        self.put_away(rig);
        match closed? {
            Closed::Damaged { first, last } => self.salvage(first, last),
            Closed::Lost(word) => {
                self.tally.count(word);
                self.is_lost = true;
                Ok(None)
            }
            Closed::Crashed | Closed::Again => {
                Err(Violation::new(format!("open fails without any fault: {error}")))
            }
        }
    }

    /// Gives up the ops that the journal has lost.
    fn salvage(&mut self, first: u64, last: u64) -> Result<Option<(Rig, Database)>, Violation> {
        let known = self.watch.lock().last_op();
        if last > known || first > last {
            return Err(Violation::new(format!(
                "ops {first} to {last} are said to be lost; {known} is the last"
            )));
        }
        let rig = self.rig(Vec::new());
        let opened = Database::salvage_machine(
            rig.machine.clone(),
            Path::new(PATH),
            &self.scenario.schema(),
            &self.options(),
        );
        match opened {
            Ok(database) => {
                self.tally.count("open: salvaged");
                let op = database.visible_op().get();
                if op + 1 != first {
                    return Err(Violation::new(format!(
                        "op {first} is lost, and {op} the last that is salvaged"
                    )));
                }
                self.watch.lock().forget_from(database.stats().checkpoint_number + 1);
                if self.book.lock().give_up(op) {
                    return Ok(Some((rig, database)));
                }
                self.is_lost = true;
                drop(database);
                self.put_away(rig);
                Ok(None)
            }
            Err(error) => {
                self.trace.note(&[9], || format!("salvage: {error}"));
                verdict::of_salvage(&error, &rig.tap.harm())?;
                self.put_away(rig);
                self.tally.count("open: beyond salvage");
                self.is_lost = true;
                Ok(None)
            }
        }
    }

    /// What a database that was just opened holds becomes certain.
    pub(crate) fn take_in(&mut self, rig: &Rig, database: &Database) -> Result<(), Violation> {
        let op = database.visible_op().get();
        let damaged = rig.tap.harm().ring_places();
        let floor = self.book.lock().floor(damaged);
        self.trace
            .note(&[10, op, floor], || format!("opened at op {op}, {floor} is the last that must be there"));
        if op < floor {
            return Err(Violation::new(format!(
                "op {floor} was durable, and {op} is the last that is found"
            )));
        }
        if op < self.book.lock().floor(0) {
            self.tally.count(TORN);
        }
        if damaged > 0 {
            // Ops may be gone that a checkpoint counted which is not durable: another one will have its number.
            self.watch.lock().forget_from(database.stats().checkpoint_number + 1);
            rig.tap.ring_is_good();
        }
        let windows = self.book.lock().survivors(op);
        let mut rng = self.rng.fork();
        let sets = inspect(&self.handle(rig, database), &windows, &mut rng)?;
        self.book.lock().adopt(op, &sets, &self.scenario.plots);
        Ok(())
    }

    /// Makes the file. False if that failed, for a reason that is explained.
    fn make(&mut self, rig: &Rig) -> Result<bool, Violation> {
        let (schema, geometry) = (self.scenario.schema(), &self.scenario.geometry);
        match Database::format(&rig.machine, Path::new(PATH), &schema, geometry, &self.options()) {
            Ok(()) => {
                self.is_made = true;
                Ok(true)
            }
            Err(error) => {
                let _closed = verdict::of_open(&error, &rig.tap.harm())?;
                self.tally.count("format: failed");
                Ok(false)
            }
        }
    }

    /// A file whose making was not acknowledged is there, empty, or is none: then it is removed.
    fn clear(&mut self) -> Result<(), Violation> {
        if self.image.is_empty() {
            return Ok(());
        }
        let rig = self.rig(Vec::new());
        let opened = self.open_on(&rig);
        self.is_made = opened.is_ok();
        drop(opened);
        self.put_away(rig);
        if !self.is_made {
            self.image.clear();
            self.harm = Harm::new(&self.scenario.geometry);
            self.watch = Arc::new(Mutex::new(Watch::new(&self.scenario.geometry)));
        }
        Ok(())
    }
}
