//! Reading and writing the four superblock copies.
//!
//! # Invariants
//! - Two copies are written and synced before the other two are touched.
//! - Copies outside the quorum that open found are the first to be overwritten (`quorum::Choice::write_order`).
//!
//! # Not here
//! Which copies to believe (`quorum`); who may write (`Grid::install`).

use understory_format::superblock::identify;
use understory_format::{Checksum, SUPERBLOCK_ZONE_SIZE};
use understory_format::{Geometry, Identity, SUPERBLOCK_SIZE, Superblock};
use understory_io::{Buffer, IoCause, IoError, Pool, Storage, WritePart, WriteParts};
use zerocopy::IntoBytes;

use crate::error::GridError;
use crate::quorum::{self, COPY_COUNT, Choice, CopyState, NoChoice};

/// Size and number of the buffers that superblock copies are read and written with.
pub(crate) const SECTOR_BUFFERS: (usize, usize) = (SUPERBLOCK_SIZE, COPY_COUNT);

/// Bytes that [`write`] writes.
#[expect(clippy::as_conversions, reason = "widening; From is not const")]
pub(crate) const BYTES_WRITTEN: u64 = (SUPERBLOCK_SIZE * COPY_COUNT) as u64;

/// The superblock that a file is opened with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) superblock: Superblock,
    pub(crate) checksum: Checksum,
    pub(crate) choice: Choice,
}

/// One copy as read.
struct Slot {
    state: CopyState,
    superblock: Option<(Superblock, Checksum)>,
    error: Option<IoError>,
}

/// Reads the copies and chooses. Writes nothing.
pub(crate) fn read(storage: &dyn Storage, sectors: &Pool) -> Result<Found, GridError> {
    let slots = [0, 1, 2, 3].map(|copy| read_slot(storage, sectors, copy));
    let copies =
        [0_usize, 1, 2, 3].map(|slot| slots.get(slot).map_or(CopyState::Unreadable, |slot| slot.state));
    let choice = quorum::choose(&copies).map_err(|why| explain(why, copies, &slots, storage.size()))?;
    let chosen = slots.get(choice.slot).and_then(|slot| slot.superblock);
    let (superblock, checksum) = chosen.expect("the chosen copy is a good one");
    Ok(Found { superblock, checksum, choice })
}

fn read_slot(storage: &dyn Storage, sectors: &Pool, copy: u8) -> Slot {
    let buffer = sectors.take().expect("there is a buffer for each copy");
    match storage.read_now(Geometry::superblock_offset(copy), buffer).into_buffer() {
        Ok(buffer) => decode_slot(&buffer, copy),
        Err(error) => Slot { state: CopyState::Unreadable, superblock: None, error: Some(error) },
    }
}

fn decode_slot(bytes: &[u8], copy: u8) -> Slot {
    let (state, superblock) = match identify(bytes) {
        Identity::Foreign => (CopyState::Foreign, None),
        Identity::Version(version) => (CopyState::Version(version), None),
        Identity::Damaged => (CopyState::Corrupt, None),
        Identity::Known => match Superblock::decode(bytes, copy) {
            Ok((superblock, checksum)) => {
                let local = &superblock.local;
                let (sequence, parent) = (local.sequence, local.parent);
                (CopyState::Valid { sequence, checksum, parent }, Some((superblock, checksum)))
            }
            Err(error) => {
                log::warn!("{error}");
                (CopyState::Corrupt, None)
            }
        },
    };
    Slot { state, superblock, error: None }
}

fn explain(why: NoChoice, copies: [CopyState; COPY_COUNT], slots: &[Slot], size: u64) -> GridError {
    let ours = copies.iter().any(|copy| !matches!(copy, CopyState::Foreign | CopyState::Unreadable));
    let failed = slots.iter().filter_map(|slot| slot.error).find(|error| error.source != IoCause::Truncated);
    match why {
        NoChoice::Version(found) => GridError::Version { found },
        NoChoice::Lost if ours && size < SUPERBLOCK_ZONE_SIZE => {
            GridError::Truncated { size, needed: SUPERBLOCK_ZONE_SIZE }
        }
        // What could not be read may be what is missed.
        NoChoice::Lost => failed.map_or(GridError::QuorumLost { copies: Box::new(copies) }, GridError::Io),
        NoChoice::NotUnderstory => failed.map_or(GridError::NotUnderstory, GridError::Io),
    }
}

/// Writes all copies in this order, and syncs after two and after four. Gives the superblock's checksum.
///
/// # Errors
/// The storage failed: then nobody knows what is durable.
pub(crate) fn write(
    storage: &dyn Storage,
    sectors: &Pool,
    superblock: &Superblock,
    order: [usize; COPY_COUNT],
) -> Result<Checksum, IoError> {
    let mut written = None;
    for pair in order.chunks(2) {
        // Both are with the storage before either is waited for.
        let tickets: Vec<_> = pair
            .iter()
            .map(|&slot| {
                let copy = u8::try_from(slot).expect("there are four copies");
                let (parts, checksum) = encode(sectors, superblock, copy);
                written = Some(checksum);
                storage.write(Geometry::superblock_offset(copy), parts)
            })
            .collect();
        for ticket in tickets {
            ticket.wait().result?;
        }
        storage.sync().wait().result?;
    }
    Ok(written.expect("there are four copies"))
}

fn encode(sectors: &Pool, superblock: &Superblock, copy: u8) -> (WriteParts, Checksum) {
    let mut buffer: Buffer = sectors.take().expect("there is a buffer for each copy");
    let (encoded, checksum) = superblock.encode(copy);
    buffer.copy_from_slice(encoded.as_bytes());
    let mut parts = WriteParts::new();
    parts.push(WritePart { buffer: std::sync::Arc::new(buffer), len: SUPERBLOCK_SIZE });
    (parts, checksum)
}
