"""The peers: each in a process of its own, driven through its own public interface in the way that suits it best."""
