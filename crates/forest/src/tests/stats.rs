//! What is timed: waits that are forced by storage that takes its time. What is counted: `watch`, after every close.

use std::sync::Arc;
use std::time::Duration;

use understory_format::zerocopy::IntoBytes;
use understory_format::{Checksum, Op};
use understory_grid::{FormatState, Grid};
use understory_io::{InlineExecutor, Machine, SimFaultPlan, SimStorage, Timings};
use understory_testkit::{Pair, TestRecord};

use super::{BLOCKS, Model, describe, geometry, open, specs};
use crate::{CheckpointRun, Forest, ForestStats, Root};

/// Pairs in a beat, which has room for a few more.
const PUTS: u64 = 400;

const SECOND: Duration = Duration::from_secs(1);

fn formatted() -> (Machine, Arc<SimStorage>) {
    let (machine, sim) = Machine::sim(1);
    let state = FormatState { geometry: geometry(), trees: &describe(&specs()), size_limit: None };
    Grid::format(&machine, &state).unwrap();
    (machine, sim)
}

/// Every operation that is not done at once takes up to this much longer.
fn delay(sim: &SimStorage, delay_max: Duration) {
    sim.set_plan(Some(SimFaultPlan { delayed: 1_000_000, delay_max, ..SimFaultPlan::default() }));
}

/// So few that compactions wait for what they write, and read what is not in memory.
const FEW_BLOCKS: u32 = 36;

/// Closes a bar whose beats each put a few pairs; gives the checkpoint, if `root` asks for one.
fn close_bar(forest: &mut Forest, model: &mut Model, root: Option<&Root>) -> Option<Arc<CheckpointRun>> {
    let mut run = None;
    let id = forest.tree::<Pair>().unwrap().id();
    for beat in 0..forest.schedule().beats_per_bar() {
        for _ in 0..PUTS {
            model.op += 1;
            let pair = Pair::make(model.op * 7919 % 10_007, model.op);
            forest.append(id, pair.as_bytes(), None).unwrap();
        }
        forest.publish();
        let is_last = beat + 1 == forest.schedule().beats_per_bar();
        run = forest.close_beat(root.filter(|_| is_last)).unwrap();
    }
    run
}

fn check_bars(machine: &Machine, bars: u32) -> ForestStats {
    let mut forest = open(machine, FEW_BLOCKS).unwrap();
    let mut model = Model::default();
    (0..bars).for_each(|_| assert!(close_bar(&mut forest, &mut model, None).is_none()));
    forest.stats()
}

#[test]
fn a_close_waits_for_the_work_of_its_beat() {
    for delay_max in [Duration::ZERO, 3 * SECOND] {
        let (machine, sim) = formatted();
        delay(&sim, delay_max);
        let stats = check_bars(&machine, 12);
        assert!(stats.pace.done_total > 0 && stats.beat_waits.count > 0, "{stats:?}");
        assert!(stats.beat_waits.count <= stats.closes.count && stats.closes.count == stats.beat.get());
        assert!(stats.beat_waits.total <= stats.closes.total && stats.beat_waits.max <= stats.closes.max);
        let slow = stats.beat_waits.max > SECOND;
        assert_eq!(slow, !delay_max.is_zero(), "{stats:?}");
        assert_eq!(stats.checkpoint_waits, Timings::default());
    }
}

#[test]
fn what_is_done_inline_is_not_waited_for() {
    let (machine, sim) = formatted();
    let machine = Machine { executor: Arc::new(InlineExecutor), ..machine };
    delay(&sim, 3 * SECOND);
    let stats = check_bars(&machine, 12);
    assert!(stats.pace.done_total > 0 && stats.closes.max > SECOND, "{stats:?}");
    assert_eq!(stats.beat_waits, Timings::default());
}

/// The first half-bar after a checkpoint closes when that is durable; whoever waited before makes it wait no more.
#[test]
fn a_half_bar_waits_for_the_checkpoint() {
    for waits_before in [false, true] {
        let (machine, sim) = formatted();
        let mut forest = open(&machine, BLOCKS).unwrap();
        let mut model = Model::default();
        assert!(close_bar(&mut forest, &mut model, None).is_none());
        let op_flushed = Op::new(model.op);
        let beats = forest.schedule().beats_per_bar();
        let op_checkpoint = Op::new(model.op + PUTS * beats);
        let root = Root { op_checkpoint, op_flushed, charge_total: 0, journal: (0, Checksum::ZERO) };
        delay(&sim, 20 * SECOND);
        assert_eq!((forest.trees().checkpoints_begun(), forest.trees().checkpoints_ended()), (0, 0));
        let run = close_bar(&mut forest, &mut model, Some(&root)).unwrap();
        assert_eq!(forest.trees().checkpoints_begun(), 1);
        if waits_before {
            run.wait().unwrap();
            assert_eq!(forest.trees().checkpoints_ended(), 1);
        }
        assert!(close_bar(&mut forest, &mut model, None).is_none());
        let stats = forest.stats();
        assert_eq!(forest.trees().checkpoints_ended(), 1);
        assert_eq!(stats.checkpoint_waits.count, u64::from(!waits_before), "{stats:?}");
        assert!(waits_before || stats.checkpoint_waits.max > SECOND, "{stats:?}");
        assert!(stats.checkpoints.count == 1 && stats.checkpoints.max > SECOND, "{stats:?}");
    }
}
