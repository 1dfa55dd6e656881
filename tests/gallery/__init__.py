"""Tests of the workflows that come along."""
