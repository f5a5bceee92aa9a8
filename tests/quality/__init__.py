"""The placement exams at full size, and the bars they are held against."""
