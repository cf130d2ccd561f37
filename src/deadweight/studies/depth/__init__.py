"""The depth study (arXiv 2511.21635): which layers still do something for the task?"""
