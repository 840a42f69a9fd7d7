//! The bundled data: a CSV file compressed with zstd, read row by row.

use crate::Failure;
use csv::StringRecord;
use ruzstd::decoding::StreamingDecoder;
use std::path::Path;

/// What the data has in place of a value that is not known.
pub(crate) const ABSENT: &str = "NA";

/// The columns of the flights, in the order of the file.
pub(crate) const COLUMNS: [&str; 19] = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
];

/// Calls `each` with every flight, and gives back how many there were.
pub(crate) fn for_each_flight(
    folder: &Path,
    mut each: impl FnMut(&StringRecord) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let path = folder.join("flights.csv.zst");
    let mut rows = open(&path)?;
    if *rows.headers()? != COLUMNS[..] {
        return Err(format!("{}: its columns are not those of the flights", path.display()).into());
    }
    let mut row = StringRecord::new();
    let mut count = 0;
    while rows.read_record(&mut row)? {
        count += 1;
        each(&row).map_err(|cause| format!("{}: flight {count}: {cause}", path.display()))?;
    }
    Ok(count)
}

/// The names of the airlines by their two-letter codes.
pub(crate) fn airlines(folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut airlines = Vec::new();
    for row in open(&folder.join("airlines.csv.zst"))?.into_records() {
        let row = row?;
        if let (Some(code), Some(name)) = (row.get(0), row.get(1)) {
            airlines.push((code.to_owned(), name.to_owned()));
        }
    }
    Ok(airlines)
}

#[expect(clippy::disallowed_types, reason = "reads the bundled data, which is no data file of the engine")]
fn open(path: &Path) -> Result<csv::Reader<impl std::io::Read + use<>>, Failure> {
    let file = std::fs::File::open(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let text = StreamingDecoder::new(std::io::BufReader::new(file))
        .map_err(|cause| format!("{}: {cause}", path.display()))?;
    Ok(csv::Reader::from_reader(text))
}
