"""Bytes to values and back: no Trio, no clock, no I/O, and therefore no mocks in its tests.

Input from the network enters through functions named ``*_untrusted``; `RemoteProtocolError` is all that they raise.
"""
