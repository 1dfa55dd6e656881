"""Reviews a contract clause by clause against a policy, drafts comments, and validates before anything is final."""
