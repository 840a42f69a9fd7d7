//! Figures that follow from others, and the table for people, of made-up statistics.

use super::*;

fn level(table_count: u64, value_count: u64, tombstone_count: u64, max: Option<u64>) -> LevelStats {
    let mut level = LevelStats::default();
    level.table_count = table_count;
    level.value_count = value_count;
    level.tombstone_count = tombstone_count;
    level.size = table_count << 20;
    level.value_count_max = max;
    level.table_value_count_max = 1000;
    level
}

fn timings(count: u64, micros: u64) -> Timings {
    Timings { count, total: Duration::from_micros(count * micros), max: Duration::from_micros(2 * micros) }
}

fn sample() -> Stats {
    let mut tree = TreeStats::default();
    tree.name = "accounts";
    tree.value_size = 64;
    tree.appended = 1 << 16;
    tree.mutable_count = 250;
    tree.immutable_count = 500;
    tree.levels =
        vec![level(4, 2000, 0, Some(8000)), level(0, 0, 0, Some(64_000)), level(9, 8000, 750, None)];
    let compaction = &mut tree.levels[0].compaction;
    (compaction.consumed, compaction.produced, compaction.dropped) = (5000, 4400, 600);
    let recorder = Recorder::default();
    (0..999).for_each(|_| recorder.record(Duration::from_nanos(31)));
    recorder.record(Duration::from_micros(500));
    let mut journal = JournalStats::default();
    (journal.bytes_written, journal.syncs) = (5 << 20, timings(10, 200));
    let mut grid = GridStats::default();
    (grid.value_bytes, grid.index_bytes) = (8 << 20, 1 << 20);
    (grid.manifest_bytes, grid.trailer_bytes, grid.superblock_bytes) = (1 << 20, 1 << 19, 1 << 19);
    let mut pace = PaceStats::default();
    (pace.job_count, pace.work, pace.done, pace.quota) = (2, 4 << 20, 1 << 20, 1 << 19);
    pace.is_refused = true;
    let compaction = tree.levels[0].compaction;
    Stats {
        trees: vec![tree],
        op: 17,
        beat: 5,
        checkpoint_number: 2,
        commits: recorder.get(),
        commits_beside_checkpoints: Histogram::default(),
        waits: Waits { beat: timings(3, 40), ..Waits::default() },
        compaction,
        pace,
        closes: timings(5, 100),
        checkpoints: Timings::default(),
        journal,
        grid,
        filter_blocks_held: 3,
        space: Space { acquired: 30, released: 4, free: 9, highest: 33 },
        block_size: 1 << 16,
        io: Counters::default(),
        file_size: 20 << 20,
        allocated_size: 19 << 20,
        grid_size: 1_280_000,
    }
}

#[test]
fn amplifications() {
    let stats = sample();
    assert_eq!(stats.committed_size(), 4 << 20);
    assert_eq!((stats.written().total(), stats.write_amplification()), (16 << 20, 4.0));
    // 2000 and 8000 - 750 in tables, 250 and 500 in memtables.
    assert_eq!((stats.record_size(), stats.space_amplification()), (640_000, 2.0));
    let nothing = Stats { trees: Vec::new(), ..stats };
    assert_eq!((nothing.write_amplification(), nothing.space_amplification()), (0.0, 0.0));
}

#[test]
fn the_table() {
    let expected = "\
op 17, beat 5, checkpoint 2
accounts: records of 64 bytes, 250 + 500 in memtables
  level   tables       values   tombstones       size   fill  tables         read      written      dropped        moved
     L0        4         2000            0    4.0 MiB    25%     50%         5000         4400          600            0
     L2        9         8000          750    9.0 MiB      -     89%            0            0            0            0
compaction: 0 merges of 5000 values (4400 written, 600 dropped), 0 moves of 0 values
half-bar: 2 jobs, 1.0 MiB of 4.0 MiB done, 0.5 MiB in this beat; NO SPACE for it
written: 16.0 MiB for 4.0 MiB committed, 4.00 times (journal 5.0 MiB, tables 9.0 MiB, manifest 1.0 MiB, trailers 0.5 MiB, superblocks 0.5 MiB)
space: grid 1.2 MiB for 0.6 MiB of records, 2.00 times; 26 blocks in use, 4 released
commits                        1000  p50 31.0ns, p99 31.0ns, p99.9 31.0ns, max 500.0us
beside checkpoints                0  p50 0.0ns, p99 0.0ns, p99.9 0.0ns, max 0.0ns
waits for a beat                  3  mean 40.0us, max 80.0us, total 120.0us
waits for a checkpoint            0  mean 0.0ns, max 0.0ns, total 0.0ns
waits for the ring                0  mean 0.0ns, max 0.0ns, total 0.0ns
closes of beats                   5  mean 100.0us, max 200.0us, total 500.0us
checkpoints                       0  mean 0.0ns, max 0.0ns, total 0.0ns
journal writes                    0  mean 0.0ns, max 0.0ns, total 0.0ns
journal syncs                    10  mean 200.0us, max 400.0us, total 2.0ms
";
    // The sign for micro is no ASCII, and so not in a source.
    let shown = sample().to_string().replace('\u{b5}', "u");
    assert!(shown == expected, "{shown}");
    let mut admitted = sample();
    admitted.pace.is_refused = false;
    assert!(!admitted.to_string().contains("NO SPACE"));
}
