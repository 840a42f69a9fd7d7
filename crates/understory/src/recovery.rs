//! Recovery: from the last checkpoint through the journal to the last op that was acknowledged.
//!
//! The journal is walked twice. The first time nothing is written: its head is found, or damage, in which case the
//! file stays as it is. Then the superblock records the head that is accepted, with the incarnation that goes on from
//! there; and the second time its ops are applied: those that the checkpoint counts into memtables, the others in
//! full (R6), so that the same blocks go to the same addresses as before.
//!
//! # Invariants
//! - No op is applied before the superblock that accepts it is durable, but for those that the checkpoint counts
//!   (R12).
//!
//! # Not here
//! How a torn tail is told from damage: the journal.

use std::path::Path;

use understory_forest::{Forest, ForestError};
use understory_format::{Checksum, LocalState, Op};
use understory_grid::GridError;
use understory_io::{Arena, Machine, trace_event, trace_span};
use understory_journal::{Head, Journal, JournalError, Mark, Replay, Start};

use crate::applier::Applier;
use crate::{Error, Options, Recovery};

/// Where a journal would be.
pub(crate) const NO_MARK: Mark = Mark { position: 0, hash: Checksum::ZERO };

/// How a file is brought up to date.
#[derive(Debug)]
pub(crate) struct Recover<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) arena: &'a Arena,
    pub(crate) path: &'a Path,
    pub(crate) options: &'a Options,
    /// Whether a damaged journal is cut before the damage.
    pub(crate) salvage: bool,
}

impl Recover<'_> {
    /// Brings `forest`, which was opened at its checkpoint, to the last op; begins to write.
    pub(crate) fn run(&self, mut forest: Forest) -> Result<(Applier, Option<Journal>), Error> {
        let _span = trace_span!(INFO, "recovery", path = %self.path.display());
        let grid = forest.grid();
        let (geometry, local) = (*grid.geometry(), grid.local_state());
        if !geometry.has_journal() {
            forest.begin(|_| ())?;
            return Ok((Applier::new(forest, NO_MARK), None));
        }
        let state = grid.checkpoint_state();
        let start = Start {
            position: local.journal_position,
            hash: local.journal_hash,
            op_flushed: state.op_flushed,
            op_checkpoint: state.op_checkpoint,
            head_op: local.head_op,
            head_hash: local.head_hash,
            incarnation: local.incarnation,
        };
        let mut progress = |done: understory_journal::Progress| {
            self.tell(Recovery::Checking { bytes: done.done, of: done.total });
        };
        let scanned = understory_journal::scan(self.machine, &geometry, &start, &mut progress);
        let (head, cut) = self.accept(scanned, start.op_checkpoint)?;
        let mark = Mark { position: start.position, hash: start.hash };
        let applier = self.replay(Applier::new(forest, mark), &start, &head, cut)?;
        let incarnation = local.incarnation + 1;
        let journal =
            Journal::begin(self.machine.clone(), self.arena, &geometry, &head, start.position, incarnation);
        Ok((applier, Some(journal.map_err(|error| journal_error(error, self.path))?)))
    }

    /// The head to go on from, and whether damage was cut off for it.
    fn accept(&self, scanned: Result<Head, JournalError>, needed: Op) -> Result<(Head, bool), Error> {
        match scanned {
            Ok(head) => {
                if head.torn {
                    let path = self.path.display();
                    log::info!("{path}: the journal has a torn end behind op {}, which is dropped", head.op);
                }
                Ok((head, false))
            }
            Err(JournalError::Damaged { first, last, last_good, .. })
                if self.salvage && last_good.op >= needed =>
            {
                log::warn!("{}: ops {first} to {last} are given up", self.path.display());
                trace_event!(WARN, %first, %last, "ops are given up");
                Ok((*last_good, true))
            }
            Err(source @ JournalError::Damaged { .. }) if self.salvage => Err(Error::BeyondSalvage {
                path: self.path.into(),
                op_checkpoint: needed,
                source: Box::new(source),
            }),
            Err(error) => Err(journal_error(error, self.path)),
        }
    }

    fn replay(&self, mut applier: Applier, start: &Start, head: &Head, cut: bool) -> Result<Applier, Error> {
        let geometry = *applier.forest().grid().geometry();
        let failed = |error| journal_error(error, self.path);
        let mut groups = Replay::new(self.machine, &geometry, start, head).map_err(failed)?;
        let of = head.op.get() - start.op_flushed.get();
        trace_event!(INFO, ops = of, from = %start.op_flushed, to = %head.op, "ops are replayed");
        let mut begun = false;
        loop {
            if !begun && applier.op() == start.op_checkpoint {
                self.begin(&mut applier, start, head, cut)?;
                begun = true;
            }
            let Some(group) = groups.next_group().map_err(failed)? else { break };
            for (record, mark) in group.records() {
                if begun {
                    match applier.apply(&record, mark) {
                        // It was not done before either, and is gone on with when there is space.
                        Err(ForestError::Grid(GridError::OutOfSpace { .. })) if applier.op() == head.op => {}
                        applied => applied?,
                    }
                } else {
                    applier.replay_counted(&record, mark)?;
                    if applier.op() == start.op_checkpoint {
                        self.begin(&mut applier, start, head, cut)?;
                        begun = true;
                    }
                }
            }
            self.tell(Recovery::Replaying { ops: applier.op().get() - start.op_flushed.get(), of });
        }
        assert!(begun, "a head that was accepted has all ops that the checkpoint counts");
        assert_eq!(applier.op(), head.op, "what was accepted was replayed");
        Ok(applier)
    }

    /// Accepts the head: the first thing that is written.
    fn begin(&self, applier: &mut Applier, start: &Start, head: &Head, cut: bool) -> Result<(), Error> {
        if start.op_flushed < start.op_checkpoint {
            applier.end_counted()?;
        }
        let (head_op, head_hash) = (head.op, head.hash);
        let accept = move |local: &mut LocalState| {
            (local.head_op, local.head_hash) = (head_op, head_hash);
            if cut {
                local.salvaged_op = head_op;
                local.salvage_count += 1;
            }
        };
        Ok(applier.forest_mut().begin(accept)?)
    }

    fn tell(&self, progress: Recovery) {
        if let Some(tell) = &self.options.on_recovery {
            tell(progress);
        }
    }
}

/// What the facade says of an error of the journal.
pub(crate) fn journal_error(error: JournalError, path: &Path) -> Error {
    match error {
        JournalError::Io(error) => Error::Io(error),
        JournalError::Corrupt(corruption) => Error::Corrupt(corruption),
        JournalError::NotEmpty { size } => {
            Error::Unusable { path: path.into(), source: GridError::NotEmpty { size } }
        }
        source @ (JournalError::Damaged { .. } | _) => Error::JournalDamaged { path: path.into(), source },
    }
}
