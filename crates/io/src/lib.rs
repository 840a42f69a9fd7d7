//! The machine under Understory, real and simulated: memory arena, storage, clock, waits and workers.
