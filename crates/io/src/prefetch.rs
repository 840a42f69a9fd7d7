//! A hint to the processor's caches.

/// Asks the processor to bring the cache line of the first byte into its caches. A hint: no effect on results;
/// nothing at all on processors without a known instruction, or for an empty slice.
#[inline]
pub fn prefetch_line(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of every x86_64 target; the instruction reads nothing architecturally and cannot
        // fault, whatever the address (here: that of a live slice, or dangling for an empty one).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        let address = bytes.as_ptr();
        // SAFETY: PRFM is a hint of the base instruction set, reads nothing architecturally and cannot fault;
        // the options promise no more than that (no stack, no flags, no memory written).
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_slice_will_do() {
        let bytes = vec![1; 100];
        super::prefetch_line(&bytes);
        super::prefetch_line(&bytes[99..]);
        super::prefetch_line(&[]);
    }
}
