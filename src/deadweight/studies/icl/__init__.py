"""The icl study (arXiv 2511.21038): do demonstrations override label meanings, or only refine a prior?"""
