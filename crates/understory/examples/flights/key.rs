//! The key of a flight: one integer that orders flights by hour, carrier, number and origin.
//!
//! | bits | what | how |
//! |---|---|---|
//! | 40 to 63 | `time_hour` | hours since 1970, UTC |
//! | 29 to 39 | `carrier` | two of 0-9 A-Z, in base 36 |
//! | 15 to 28 | `flight` | its number |
//! | 0 to 14 | `origin` | three of A-Z, in base 26 |
//!
//! # Invariants
//! - Keys compare as the tuples of their parts do ([`pack`] refuses a part that does not fit its bits).

use crate::Failure;

const CARRIER_SHIFT: u32 = 29;
const NUMBER_SHIFT: u32 = 15;
const HOUR_SHIFT: u32 = 40;
const NUMBER_MAX: u16 = (1 << (CARRIER_SHIFT - NUMBER_SHIFT)) - 1;

/// Packs the four parts.
pub(crate) fn pack(time_hour: &str, carrier: [u8; 2], number: u16, origin: [u8; 3]) -> Result<u64, Failure> {
    if number > NUMBER_MAX {
        return Err(format!("flight {number} is above {NUMBER_MAX}").into());
    }
    let carrier = in_base(36, &carrier, |letter| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'A'..=b'Z' => Some(letter - b'A' + 10),
        _ => None,
    })?;
    let origin = in_base(26, &origin, |letter| letter.is_ascii_uppercase().then(|| letter - b'A'))?;
    let hours = hours(time_hour).ok_or_else(|| format!("time_hour: {time_hour:?} is no full hour of UTC"))?;
    Ok(hours << HOUR_SHIFT | carrier << CARRIER_SHIFT | u64::from(number) << NUMBER_SHIFT | origin)
}

/// The part `time_hour` of a key, as the data spells it.
pub(crate) fn time_hour(id: u64) -> String {
    let hours = id >> HOUR_SHIFT;
    let (year, month, day) = date(hours / 24);
    format!("{year:04}-{month:02}-{day:02}T{:02}:00:00Z", hours % 24)
}

/// The number that `digits` spell.
fn in_base(base: u64, digits: &[u8], digit: impl Fn(u8) -> Option<u8>) -> Result<u64, Failure> {
    digits.iter().try_fold(0, |number, letter| {
        let digit = digit(*letter).ok_or_else(|| format!("{letter:#04x} is no digit in base {base}"))?;
        Ok(number * base + u64::from(digit))
    })
}

/// Hours since 1970 of a time like `2013-01-31T23:00:00Z`.
fn hours(text: &str) -> Option<u64> {
    let (day, time) = text.split_once('T')?;
    let hour: u64 = time.strip_suffix(":00:00Z")?.parse().ok()?;
    let mut parts = day.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let day_number = days_before_year(year)? + days_before_month(year, month)? + day.checked_sub(1)?;
    (hour < 24 && date(day_number) == (year, month, day)).then_some(day_number * 24 + hour)
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(day_number: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let mut day = day_number;
    while day >= days_in_year(year) {
        day -= days_in_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_in_month(year, month) {
        day -= days_in_month(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

fn days_before_year(year: u64) -> Option<u64> {
    (1970..=9999).contains(&year).then(|| (1970..year).map(days_in_year).sum())
}

fn days_before_month(year: u64, month: u64) -> Option<u64> {
    (1..=12).contains(&month).then(|| (1..month).map(|month| days_in_month(year, month)).sum())
}

fn days_in_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}
