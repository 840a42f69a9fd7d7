//! What the demo found, for people and for programs.

use crate::answers::{Answer, Lines};
use crate::pass::{Check, Pass};
use crate::plain::Plain;
use serde_json::{Value, json};
use std::time::Duration;
use understory::Stats;

/// Airlines by code, for people.
pub(crate) type Airlines = Vec<(String, String)>;

/// Prints one pass.
pub(crate) fn print(pass: &Pass, plain: &Plain, airlines: &Airlines) {
    let loaded = &pass.loaded;
    println!("\n{} ({})", pass.name, pass.path.display());
    println!(
        "  loaded     {} flights, {} records in {} commits, {:.2} s: {} flights/s, {} records/s",
        plain.rows,
        loaded.records,
        loaded.commits,
        loaded.took.as_secs_f64(),
        rounded(plain.rows, loaded.took),
        rounded(loaded.records, loaded.took),
    );
    println!(
        "  written    {} MiB to the device for {} MiB of records: {:.2} bytes per byte",
        pass.bytes_written() >> 20,
        loaded.record_bytes >> 20,
        pass.write_amplification(),
    );
    println!(
        "  file       {} MiB: {:.2} bytes per byte of records",
        pass.file_size >> 20,
        pass.space_amplification()
    );
    println!("  reopened   in {:.1} ms", pass.reopen.as_secs_f64() * 1e3);
    println!(
        "  looked up  every flight by its key, and read the CSV beside: {:.2} s, {} flights/s",
        pass.lookups.as_secs_f64(),
        rounded(plain.rows, pass.lookups),
    );
    levels(pass);
    println!("  answers from the indexes, beside those of a plain pass over the CSV");
    for (answer, question) in pass.answers.all().iter().zip(&pass.questions) {
        println!(
            "    {} {:>8.2} ms  {}",
            verdict(question.matches),
            question.took.as_secs_f64() * 1e3,
            answer.name
        );
        println!("                   {}", summary(answer, airlines));
    }
    println!("  counts");
    for check in &pass.checks {
        println!("    {} {:>9} {}{}", verdict(check.holds()), check.found, check.name, expected(check));
    }
}

/// Prints the engine's own figures.
pub(crate) fn print_stats(stats: &Stats) {
    println!("  statistics after the load");
    stats.to_string().lines().for_each(|line| println!("    {line}"));
}

/// Prints what all passes have in common.
pub(crate) fn print_end(passes: &[Pass], kept: bool) {
    if let Some(peak) = memory_peak() {
        println!("\npeak memory of the process: {} MiB", peak >> 20);
    }
    if kept {
        passes.iter().for_each(|pass| println!("kept: {}", pass.path.display()));
    }
    let matches = passes.iter().all(Pass::matches);
    println!("{}", if matches { "everything matches" } else { "NOT EVERYTHING MATCHES" });
}

/// All results. What is at the top belongs to the first pass, with the default geometry.
pub(crate) fn json(passes: &[Pass], plain: &Plain) -> String {
    let mut all = json!({
        "rows": plain.rows,
        "matches": passes.iter().all(Pass::matches),
        "memory_peak": memory_peak(),
    });
    if let (Some(first), Some(all)) = (passes.first(), all.as_object_mut()) {
        all.insert("trees".to_owned(), json!(first.trees.len()));
        if let Value::Object(first) = pass_json(first, plain) {
            all.extend(first);
        }
        all.insert("passes".to_owned(), passes.iter().map(|pass| pass_json(pass, plain)).collect());
    }
    format!("{all:#}\n")
}

fn pass_json(pass: &Pass, plain: &Plain) -> Value {
    let queries: Vec<Value> = pass
        .answers
        .all()
        .iter()
        .zip(&pass.questions)
        .map(|(answer, question)| {
            json!({
                "name": answer.name,
                "matches": question.matches,
                "milliseconds": question.took.as_secs_f64() * 1e3,
                "answer": answer.answer.to_json(),
            })
        })
        .collect();
    let checks: Vec<Value> = pass
        .checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "matches": check.holds(),
                "expected": check.expected,
                "found": check.found,
            })
        })
        .collect();
    let result = |name: &str, unit: &str, value: f64| json!({ "name": name, "unit": unit, "value": value });
    json!({
        "name": pass.name,
        "results": [
            result("load rate", "flights/s", per_second(plain.rows, pass.loaded.took)),
            result("load rate of records", "records/s", per_second(pass.loaded.records, pass.loaded.took)),
            result("write amplification", "bytes/byte", pass.write_amplification()),
            result("space amplification", "bytes/byte", pass.space_amplification()),
            result("file size", "bytes", float(pass.file_size)),
            result("bytes of records", "bytes", float(pass.loaded.record_bytes)),
            result("bytes written", "bytes", float(pass.bytes_written())),
            result("reopen", "ms", pass.reopen.as_secs_f64() * 1e3),
            result("lookup rate", "flights/s", per_second(plain.rows, pass.lookups)),
        ],
        "load_rate": per_second(plain.rows, pass.loaded.took),
        "write_amplification": pass.write_amplification(),
        "file_size": pass.file_size,
        "levels": pass.trees.iter().map(|tree| (tree.name.to_owned(), json!(tree.tables))).collect::<Value>(),
        "queries": queries,
        "checks": checks,
    })
}

/// Tables on each level of each tree.
fn levels(pass: &Pass) {
    let depth = pass.trees.iter().map(|tree| tree.tables.len()).max().unwrap_or(0);
    let heads: String = (0..depth).map(|level| format!("{:>7}", format!("L{level}"))).collect();
    println!("  tables     {:<24}{heads}", "");
    for tree in &pass.trees {
        let tables: String = tree.tables.iter().map(|tables| format!("{tables:>7}")).collect();
        println!("             {:<24}{tables}", tree.name);
    }
}

fn summary(answer: &Answer<'_>, airlines: &Airlines) -> String {
    match (&answer.answer, answer.name) {
        (Lines::Counts(counts), "flights per carrier") => {
            let named = |(code, count): &(String, u64)| {
                let airline = airlines.iter().find(|(other, _)| other == code);
                format!("{} {count}", airline.map_or(code.as_str(), |(_, name)| name))
            };
            counts.iter().map(named).collect::<Vec<_>>().join(", ")
        }
        (lines, _) => lines.summary(),
    }
}

fn verdict(matches: bool) -> &'static str {
    if matches { "ok   " } else { "WRONG" }
}

fn expected(check: &Check) -> String {
    if check.holds() { String::new() } else { format!(" (expected {})", check.expected) }
}

/// The most memory that this process ever had, where the system says so.
#[expect(clippy::disallowed_methods, reason = "asks the system, which answers in a file")]
fn memory_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn rounded(count: u64, took: Duration) -> String {
    format!("{:.0} k", per_second(count, took) / 1e3)
}

fn per_second(count: u64, took: Duration) -> f64 {
    float(count) / took.as_secs_f64()
}

#[expect(clippy::as_conversions, reason = "a figure for a person: 53 bits are plenty")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
