//! A flight as a record of fixed size, and the entries of its indexes.
//!
//! A value that the data marks as absent (`NA`) is zero in the record, and its bit in `present` is zero: every bit
//! pattern of a number stays a legal number, and nothing has to be reserved. An absent tail number has no index
//! entry.
//!
//! # Invariants
//! - A record holds all of its row: [`Flight::to_row`] gives back what [`Flight::from_row`] took, which the demo
//!   checks for each of the 336,776 rows.

use crate::Failure;
use crate::key;
use crate::source::ABSENT;
use csv::StringRecord;
use understory::record;
use zerocopy::little_endian::{I16, U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One flight: all columns of its row, in 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Flight {
    /// Scheduled hour (UTC), carrier, number and origin, as [`key::pack`] packs them.
    pub(crate) id: U64,
    year: U16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    number: U16,
    distance: U16,
    sched_dep_time: U16,
    sched_arr_time: U16,
    dep_time: U16,
    arr_time: U16,
    dep_delay: I16,
    arr_delay: I16,
    air_time: U16,
    carrier: [u8; 2],
    origin: [u8; 3],
    dest: [u8; 3],
    tailnum: [u8; 6],
    /// One bit for each column that may be absent, see the constants.
    present: u8,
    reserved: u8,
}

record! { Flight: "flights", key = { id: U64 } }

const DEP_TIME: u8 = 1 << 0;
const DEP_DELAY: u8 = 1 << 1;
const ARR_TIME: u8 = 1 << 2;
const ARR_DELAY: u8 = 1 << 3;
const AIR_TIME: u8 = 1 << 4;
const TAILNUM: u8 = 1 << 5;

/// Declares an index: its columns, then the flight's key.
macro_rules! index {
    ($name:ident, $label:literal, { $($column:ident: $kind:ty),+ }) => {
        #[doc = concat!("An entry of the index `", $label, "`.")]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $column: $kind,)+
            pub(crate) id: U64,
        }

        record! { $name: $label, key = { $($column: $kind,)+ id: U64 } }
    };
}

index!(ByCarrier, "flights-by-carrier", { carrier: [u8; 2] });
index!(ByOrigin, "flights-by-origin", { origin: [u8; 3] });
index!(ByDest, "flights-by-destination", { dest: [u8; 3] });
index!(ByTailnum, "flights-by-tail-number", { tailnum: [u8; 6] });
index!(ByDay, "flights-by-day", { year: U16, month: u8, day: u8 });

impl Flight {
    /// Bytes of a flight and of all its index entries, if it has a tail number.
    pub(crate) const SIZE_WITH_INDEXES: usize = size_of::<Flight>()
        + size_of::<ByCarrier>()
        + size_of::<ByOrigin>()
        + size_of::<ByDest>()
        + size_of::<ByTailnum>()
        + size_of::<ByDay>();

    /// Takes every column of a row.
    pub(crate) fn from_row(row: &StringRecord) -> Result<Flight, Failure> {
        let columns = Columns(row);
        let mut present = 0;
        let mut optional = |bit: u8, name: &'static str| -> Result<i16, Failure> {
            if columns.text(name)? == ABSENT {
                return Ok(0);
            }
            present |= bit;
            columns.number(name)
        };
        let dep_time = U16::new(optional(DEP_TIME, "dep_time")?.try_into()?);
        let arr_time = U16::new(optional(ARR_TIME, "arr_time")?.try_into()?);
        let air_time = U16::new(optional(AIR_TIME, "air_time")?.try_into()?);
        let dep_delay = I16::new(optional(DEP_DELAY, "dep_delay")?);
        let arr_delay = I16::new(optional(ARR_DELAY, "arr_delay")?);
        let tailnum = match columns.text("tailnum")? {
            ABSENT => [0; 6],
            text => {
                present |= TAILNUM;
                padded(text)?
            }
        };
        let (carrier, origin) = (padded(columns.text("carrier")?)?, padded(columns.text("origin")?)?);
        let number = columns.number("flight")?;
        Ok(Flight {
            id: U64::new(key::pack(columns.text("time_hour")?, carrier, number, origin)?),
            year: U16::new(columns.number("year")?),
            month: columns.number("month")?,
            day: columns.number("day")?,
            hour: columns.number("hour")?,
            minute: columns.number("minute")?,
            number: U16::new(number),
            distance: U16::new(columns.number("distance")?),
            sched_dep_time: U16::new(columns.number("sched_dep_time")?),
            sched_arr_time: U16::new(columns.number("sched_arr_time")?),
            dep_time,
            arr_time,
            dep_delay,
            arr_delay,
            air_time,
            carrier,
            origin,
            dest: padded(columns.text("dest")?)?,
            tailnum,
            present,
            reserved: 0,
        })
    }

    /// Gives back the row that the flight was made from.
    pub(crate) fn to_row(self) -> StringRecord {
        let optional = |bit: u8, value: i64| match self.present & bit {
            0 => ABSENT.to_owned(),
            _ => value.to_string(),
        };
        let tailnum = match self.present & TAILNUM {
            0 => ABSENT,
            _ => text(&self.tailnum),
        };
        StringRecord::from(vec![
            self.year.to_string(),
            self.month.to_string(),
            self.day.to_string(),
            optional(DEP_TIME, self.dep_time.get().into()),
            self.sched_dep_time.to_string(),
            optional(DEP_DELAY, self.dep_delay.get().into()),
            optional(ARR_TIME, self.arr_time.get().into()),
            self.sched_arr_time.to_string(),
            optional(ARR_DELAY, self.arr_delay.get().into()),
            text(&self.carrier).to_owned(),
            self.number.to_string(),
            tailnum.to_owned(),
            text(&self.origin).to_owned(),
            text(&self.dest).to_owned(),
            optional(AIR_TIME, self.air_time.get().into()),
            self.distance.to_string(),
            self.hour.to_string(),
            self.minute.to_string(),
            key::time_hour(self.id.get()),
        ])
    }

    pub(crate) fn by_carrier(&self) -> ByCarrier {
        ByCarrier { carrier: self.carrier, id: self.id }
    }

    pub(crate) fn by_origin(&self) -> ByOrigin {
        ByOrigin { origin: self.origin, id: self.id }
    }

    pub(crate) fn by_dest(&self) -> ByDest {
        ByDest { dest: self.dest, id: self.id }
    }

    /// `None` if the data does not say which aircraft it was.
    pub(crate) fn by_tailnum(&self) -> Option<ByTailnum> {
        (self.present & TAILNUM != 0).then_some(ByTailnum { tailnum: self.tailnum, id: self.id })
    }

    pub(crate) fn by_day(&self) -> ByDay {
        ByDay { year: self.year, month: self.month, day: self.day, id: self.id }
    }
}

/// The columns of a row by name.
struct Columns<'a>(&'a StringRecord);

impl<'a> Columns<'a> {
    fn text(&self, name: &str) -> Result<&'a str, Failure> {
        column(self.0, name)
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, Failure> {
        let text = self.text(name)?;
        text.parse().map_err(|_| format!("{name}: {text:?} is not a number that fits").into())
    }
}

/// The text of one column.
pub(crate) fn column<'a>(row: &'a StringRecord, name: &str) -> Result<&'a str, Failure> {
    let position = crate::source::COLUMNS.iter().position(|column| *column == name);
    Ok(position.and_then(|position| row.get(position)).ok_or_else(|| format!("no column {name}"))?)
}

/// A text of at most `N` bytes, with zeros after it.
pub(crate) fn padded<const N: usize>(text: &str) -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let place = bytes.get_mut(..text.len()).ok_or_else(|| format!("{text:?} is longer than {N} bytes"))?;
    place.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// The text in front of the zeros.
pub(crate) fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("?")
}
