//! The `layout!` macro: a wire struct and its table of fields from one declaration.
//!
//! What is declared once is used for the zerocopy struct, the compile-time checks of size and offsets, the zero
//! check of reserved fields, the dumps of the inspector and of the expectations, and `docs/layout/*.md`. So no
//! description of a format can drift from the bytes.
//!
//! ```text
//! layout! {
//!     /// What the struct is.
//!     pub struct Name: 16 = "name" {
//!         /// What the field is.
//!         0: address: U64,
//!         8: reserved: [u8; 8],
//!     }
//! }
//! ```
//! declares 16 bytes; the number before each field is its offset. Both are asserted by the compiler, so a field
//! that is inserted without moving the others does not compile. A field whose name starts with `reserved` must be
//! zero on disk: [`Layout::check_reserved`] finds one that is not, also in nested structs.
//!
//! # Invariants
//! - Fields are in order, adjacent, and fill the struct (asserted at compile time).
//!
//! # Not here
//! Layouts that depend on values (pages, index sections): `value`, `index`.

use crate::error::Corruption;
use zerocopy::little_endian::{U16, U32, U64, U128};

/// Table of the fields of one wire struct.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Name as in file names and dumps, with dashes.
    pub name: &'static str,
    /// What the struct is; several lines, each starting with a space.
    pub doc: &'static str,
    /// Bytes.
    pub size: usize,
    /// In the order of their offsets, without gaps.
    pub fields: &'static [Field],
}

/// One field of a wire struct.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as in the struct.
    pub name: &'static str,
    /// Offset of its first byte in the struct.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// What the field is; several lines, each starting with a space.
    pub doc: &'static str,
    /// How its bytes are read.
    pub kind: FieldKind,
}

/// How the bytes of a field are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A little-endian unsigned integer.
    Uint,
    /// Bytes without an order of their own.
    Bytes,
    /// A struct with a table of its own.
    Struct(&'static Layout),
}

impl Field {
    /// Whether its bytes must be zero.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.name.starts_with("reserved")
    }
}

impl Layout {
    /// Checks that the reserved fields are zero, nested ones included; `bytes` are those of the struct.
    ///
    /// # Errors
    /// The first reserved field with a byte that is not zero, or that is not there because `bytes` is short.
    pub fn check_reserved(&self, bytes: &[u8]) -> Result<(), Corruption> {
        for field in self.fields {
            let Some(bytes) = bytes.get(field.offset..field.offset + field.size) else {
                return crate::error::at_least(
                    "length",
                    crate::units::u64_of(self.size),
                    crate::units::u64_of(bytes.len()),
                );
            };
            if let FieldKind::Struct(layout) = field.kind {
                layout.check_reserved(bytes)?;
            } else if field.is_reserved() {
                crate::error::zero(field.name, bytes)?;
            }
        }
        Ok(())
    }
}

/// A type that can be a field of a wire struct.
pub trait WireType {
    /// How its bytes are read.
    const KIND: FieldKind;
}

impl WireType for u8 {
    const KIND: FieldKind = FieldKind::Uint;
}
impl WireType for U16 {
    const KIND: FieldKind = FieldKind::Uint;
}
impl WireType for U32 {
    const KIND: FieldKind = FieldKind::Uint;
}
impl WireType for U64 {
    const KIND: FieldKind = FieldKind::Uint;
}
impl WireType for U128 {
    const KIND: FieldKind = FieldKind::Uint;
}
impl<const N: usize> WireType for [u8; N] {
    const KIND: FieldKind = FieldKind::Bytes;
}

/// Whether the fields are in order, without gaps, and fill the struct.
pub(crate) const fn is_dense(layout: &Layout) -> bool {
    let mut fields = layout.fields;
    let mut end = 0;
    while let [field, rest @ ..] = fields {
        if field.offset != end {
            return false;
        }
        end += field.size;
        fields = rest;
    }
    end == layout.size
}

/// Declares a wire struct, its `LAYOUT`, and the compile-time checks; see the module.
macro_rules! layout {
    ($(#[doc = $doc:literal])+ $vis:vis struct $name:ident : $size:literal = $label:literal {
        $( $(#[doc = $field_doc:literal])+ $offset:literal : $field:ident : $type:ty ),+ $(,)?
    }) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        $vis struct $name {
            $( $(#[doc = $field_doc])+ $vis $field: $type, )+
        }

        impl $name {
            /// The table of its fields.
            pub const LAYOUT: $crate::layout::Layout = $crate::layout::Layout {
                name: $label,
                doc: concat!($($doc, "\n"),+),
                size: size_of::<Self>(),
                fields: &[$($crate::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!(Self, $field),
                    size: size_of::<$type>(),
                    doc: concat!($($field_doc, "\n"),+),
                    kind: <$type as $crate::layout::WireType>::KIND,
                }),+],
            };
        }

        impl $crate::layout::WireType for $name {
            const KIND: $crate::layout::FieldKind =
                $crate::layout::FieldKind::Struct(&$name::LAYOUT);
        }

        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
        const _: () = assert!($crate::layout::is_dense(&$name::LAYOUT));
        $( const _: () = assert!(
            core::mem::offset_of!($name, $field) == $offset,
            concat!("offset of ", stringify!($name), ".", stringify!($field)),
        ); )+
    };
}
pub(crate) use layout;
