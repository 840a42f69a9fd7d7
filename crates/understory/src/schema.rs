//! Which trees a database has, declared by their record types.
//!
//! # Not here
//! What a record must be: that is `Record`'s.

use understory_forest::TreeSpec;
use understory_format::{Geometry, Record, TreeDescription, TreeId, catalogue, usize_of};

use crate::error::{SchemaDifference, SchemaError};

/// The trees of a database, in order. The order is part of the file: it gives trees their ids.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    trees: Vec<TreeSpec>,
}

impl Schema {
    /// A schema without trees.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the tree of the records of type `R`, named [`Record::NAME`].
    #[must_use]
    pub fn tree<R: Record>(mut self) -> Self {
        self.trees.push(TreeSpec::of::<R>());
        self
    }

    pub(crate) fn trees(&self) -> &[TreeSpec] {
        &self.trees
    }

    /// Whether a file of this geometry can hold these trees.
    pub(crate) fn check(&self, geometry: &Geometry) -> Result<(), SchemaError> {
        if self.trees.is_empty() {
            return Err(SchemaError::Empty);
        }
        let limit = usize_of(catalogue::capacity(geometry.block_size));
        if self.trees.len() > limit {
            return Err(SchemaError::TooManyTrees { count: self.trees.len(), limit });
        }
        let mut names: Vec<_> = self.trees.iter().map(TreeSpec::name).collect();
        names.sort_unstable();
        if let Some((name, _)) =
            names.iter().zip(names.iter().skip(1)).find(|(first, second)| first == second)
        {
            return Err(SchemaError::DuplicateName { name });
        }
        let misfit = self.trees.iter().find(|tree| !tree.fits(geometry));
        misfit.map_or(Ok(()), |tree| Err(SchemaError::RecordTooLarge { name: tree.name() }))
    }

    pub(crate) fn describe(&self) -> Vec<TreeDescription> {
        let ids = (1..).filter_map(TreeId::new);
        self.trees.iter().zip(ids).map(|(tree, id)| tree.describe(id)).collect()
    }

    /// The first difference to the trees of a file.
    pub(crate) fn differs(&self, file: &[TreeDescription]) -> Option<SchemaDifference> {
        if self.trees.len() != file.len() {
            return Some(SchemaDifference::Count { file: file.len(), declared: self.trees.len() });
        }
        let pairs = self.trees.iter().zip(self.describe()).zip(file).enumerate();
        pairs.into_iter().find_map(|(position, ((tree, ours), theirs))| {
            let name = tree.name();
            if ours.name != theirs.name {
                let file = theirs.name.as_str().to_string();
                return Some(SchemaDifference::Name { position, file, declared: name });
            }
            if ours.value_size != theirs.value_size {
                let (file, declared) = (theirs.value_size, ours.value_size);
                return Some(SchemaDifference::ValueSize { name, file, declared });
            }
            if ours.key != theirs.key {
                return Some(SchemaDifference::Key { name });
            }
            (ours.usage != theirs.usage).then_some(SchemaDifference::Usage { name })
        })
    }
}
