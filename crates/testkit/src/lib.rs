//! Test records, key generators and dumps shared by the tests of the workspace.
