//! Number of threads for engines without a configured one. Pure.

/// Threads for each of `engines` loaded engines on `cores` usable cores.
///
/// Engines rarely compute at the same time, so each may use all cores while the total is at most
/// twice the number of cores. With threads that sleep while they wait for a core
/// (`openmp_barrier.rs`), two engines of 2 threads each lost nothing on 2 cores against 1 thread
/// each (49 and 47 tokens/s, research notes on llama.cpp), and one that computes alone is twice as
/// fast. Beyond that, threads that wait at ggml's barriers would also wait for cores, so shares
/// shrink from the third engine on.
pub fn share(cores: usize, engines: usize) -> usize {
    let cores = cores.max(1);
    (2 * cores / engines.max(1)).clamp(1, cores)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_or_two_engines_use_all_cores_and_more_share_them() {
        let shares: Vec<usize> = [1, 2, 3, 4, 8, 32].map(|engines| share(8, engines)).to_vec();
        assert_eq!(shares, [8, 8, 5, 4, 2, 1]);
        assert_eq!((share(1, 1), share(0, 0), share(2, 3)), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn together_they_want_at_most_twice_the_cores_or_one_each(cores in 1usize..300, engines in 1usize..300) {
            let each = share(cores, engines);
            prop_assert!((1..=cores).contains(&each));
            prop_assert!(each == 1 || each * engines <= 2 * cores);
            prop_assert!(share(cores, engines + 1) <= each);
        }
    }
}
