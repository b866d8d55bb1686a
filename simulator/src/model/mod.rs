//! What the cluster's answers are held against: a plain reference store that is fed with the committed log.
